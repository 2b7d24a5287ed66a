package faults_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/faults/proxy"
	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
)

type object = map[string]any

const stack = restclient.Stack("default/app/dev")

// site is a server behind a proxy, a pool, and agents as a test starts them.
type site struct {
	*rig.Server
	t     *testing.T
	proxy *proxy.Proxy
	token string // of the pool
	n     int
}

func newSite(t *testing.T) *site {
	t.Helper()
	server, err := rig.StartServer(t.Context(), programs, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Server: server, t: t}
	t.Cleanup(func() { s.stop(server.Process) })
	pool, err := server.CreatePool(t.Context(), "default", "faults")
	if err != nil {
		t.Fatal(err)
	}
	s.token = pool.TokenValue
	if s.proxy, err = proxy.New(t.Context(), strings.TrimPrefix(server.URL, "http://"), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.proxy.Close)
	return s
}

// agent starts an agent that reaches the server through the proxy; a flag in
// args wins over that.
func (s *site) agent(args ...string) *rig.Process {
	s.t.Helper()
	s.n++
	name := fmt.Sprintf("agent-%d", s.n)
	a, err := s.StartAgent(s.t.Context(), programs, name, s.token, slices.Concat([]string{
		"--service-url", s.proxy.URL(), "--agent-name", name, "--deploy-target", "process",
		"--poll-wait", "1s", "--polling-interval", "200ms", "--job-status-loop-interval", "500ms", "--request-timeout", "2s",
		"--request-retry-wait", "200ms", "--request-retry-max-wait", "500ms", "--circuit-breaker-timeout", "500ms",
	}, args), []string{"PATH=" + filepath.Dir(programs.Standin) + ":" + os.Getenv("PATH")})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.stop(a) })
	return a
}

func (s *site) stop(p *rig.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		s.t.Error(err)
	}
	if s.t.Failed() {
		s.t.Logf("%s said:\n%s", p.Name, p.Tail())
	}
}

// request is an update of a project that the job makes itself.
func request(variables object, commands ...string) object {
	env := object{"PULUMI_BACKEND_URL": "https://api.pulumi.com", "PULUMI_STANDIN_RECORD": "/dev/stderr"}
	for name, value := range variables {
		env[name] = value
	}
	return object{
		"operation":       "update",
		"executorContext": object{"executorImage": "unused"},
		"operationContext": object{
			"environmentVariables": env,
			"preRunCommands":       append([]string{`printf 'name: faults\nruntime: yaml\n' > Pulumi.yaml`}, commands...),
			"options":              object{"skipInstallDependencies": true},
		},
	}
}

// create creates a deployment.
func (s *site) create(r object) (id string) {
	s.t.Helper()
	created, err := s.Create(s.bounded(), stack, r)
	if err != nil {
		s.t.Fatal(err)
	}
	return created.ID
}

func (s *site) bounded() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 90*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

// until waits until the log of a deployment holds text.
func (s *site) until(id, text string) {
	s.t.Helper()
	for ctx := s.bounded(); ; pause(ctx) {
		log := s.log(id)
		if strings.Contains(log, text) {
			return
		}
		d, err := s.Get(ctx, stack, id)
		if err != nil || d.Status.Terminal() || ctx.Err() != nil {
			s.t.Fatalf("the log lacks %q and the deployment is %s, %v:\n%s", text, d.Status, err, log)
		}
	}
}

// end waits for the end of a deployment and returns its log with it.
func (s *site) end(id string) (api.Status, string) {
	s.t.Helper()
	d, err := s.WaitEnd(s.bounded(), stack, id)
	log := s.log(id)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, log)
	}
	return d.Status, log
}

func (s *site) log(id string) string {
	s.t.Helper()
	var out strings.Builder
	for token := ""; ; {
		lines, next, err := s.Logs(context.WithoutCancel(s.t.Context()), stack, id, token)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, l := range lines {
			out.WriteString(l.Line)
		}
		if next == "" || next == token {
			return out.String()
		}
		token = next
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

// printing makes the stand-in print numbered lines for a while.
func printing(lines, rate string) object {
	return object{"PULUMI_STANDIN_LINES": lines, "PULUMI_STANDIN_RATE": rate}
}

var numbered = regexp.MustCompile(`(?m)^at \S+ line (\d+) \.+\n`)

// whole checks that the lines of printing are all there, once and in order.
func whole(t *testing.T, log string, want int) {
	t.Helper()
	all := numbered.FindAllStringSubmatch(log, -1)
	for i, m := range all {
		if m[1] != fmt.Sprint(i) {
			t.Errorf("line %d of the log is number %s", i, m[1])
			return
		}
	}
	if len(all) != want {
		t.Errorf("the log has %d lines, want %d", len(all), want)
	}
}

// count counts what the stand-in recorded of itself in the log.
func count(log, what string) int { return strings.Count(log, what) }

const (
	began       = `"up"`
	interrupted = `"signal":"interrupt"`
	terminated  = `"signal":"terminated"`
)
