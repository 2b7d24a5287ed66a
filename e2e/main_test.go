package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/testkit"
)

// built holds what every test needs and nobody should build twice.
var built struct {
	programs rig.Programs
	image    func(t *testing.T) string
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "longshore-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if built.programs, err = rig.Build(context.Background(), filepath.Join(dir, "bin")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var once sync.Once
	var imageErr error
	built.image = func(t *testing.T) string {
		t.Helper()
		testkit.Need(t, "docker")
		busybox := testkit.Path(t, "busybox")
		const reference = "longshore-e2e-job:latest"
		once.Do(func() {
			imageErr = rig.ImportImage(context.Background(), reference, busybox, built.programs.Standin)
		})
		if imageErr != nil {
			t.Fatal(imageErr)
		}
		return reference
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// target is a place where jobs live, as the tests see it.
type target struct {
	name      string
	agentArgs []string
	agentEnv  []string
	image     string
}

// eachTarget runs the test on the process target and on Docker.
func eachTarget(t *testing.T, test func(t *testing.T, on target)) {
	t.Run("process", func(t *testing.T) {
		t.Parallel()
		test(t, processTarget())
	})
	t.Run("docker", func(t *testing.T) {
		t.Parallel()
		test(t, dockerTarget(t))
	})
}

func processTarget() target {
	return target{
		name:      "process",
		agentArgs: []string{"--deploy-target", "process"},
		agentEnv:  []string{"PATH=" + filepath.Dir(built.programs.Standin) + ":" + os.Getenv("PATH")},
		image:     "unused",
	}
}

func dockerTarget(t *testing.T) target {
	t.Helper()
	return target{
		name:      "docker",
		agentArgs: []string{"--deploy-target", "docker", "--docker-network", "host", "--pull-policy", "never"},
		image:     built.image(t),
	}
}

// site is one server with a pool, and agents as a test starts them.
type site struct {
	*rig.Server
	t         *testing.T
	poolID    string
	poolToken string
	agents    []*rig.Process
}

func newSite(t *testing.T, serverArgs ...string) *site {
	t.Helper()
	return newSiteAt(t, "", serverArgs...)
}

// newSiteAt is newSite with a server that listens on an address.
func newSiteAt(t *testing.T, listen string, serverArgs ...string) *site {
	t.Helper()
	server, err := rig.StartServer(t.Context(), built.programs, t.TempDir(), listen, serverArgs...)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Server: server, t: t}
	t.Cleanup(s.close)
	pool, err := server.CreatePool(t.Context(), "default", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	s.poolID, s.poolToken = pool.ID, pool.TokenValue
	return s
}

// close stops everything, the server last: agents have last words.
func (s *site) close() {
	for _, a := range s.agents {
		a.Drain()
	}
	for _, a := range s.agents {
		stop(s.t, a)
	}
	stop(s.t, s.Process)
}

// agent starts an agent of the site's pool.
func (s *site) agent(on target, args ...string) *rig.Process {
	s.t.Helper()
	name := fmt.Sprintf("agent-%d", len(s.agents)+1)
	a, err := s.StartAgent(s.t.Context(), built.programs, name, s.poolToken,
		slices.Concat([]string{"--poll-wait", "2s"}, on.agentArgs, args), on.agentEnv) // a drain waits for a held poll
	if err != nil {
		s.t.Fatal(err)
	}
	s.agents = append(s.agents, a)
	return a
}

func stop(t *testing.T, p *rig.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("%s said:\n%s", p.Name, p.Tail())
	}
}
