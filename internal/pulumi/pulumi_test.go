package pulumi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/pulumi"
)

// bin holds the stand-in under the name pulumi.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pulumi-test-")
	if err != nil {
		panic(err)
	}
	bin = dir
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "pulumi"), "../../e2e/standin").CombinedOutput()
	if err != nil {
		panic(fmt.Sprintf("build the stand-in: %v\n%s", err, out))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// place is a project folder, an environment, and what the stand-in recorded.
type place struct {
	t      *testing.T
	dir    string
	env    []string
	record string
}

func newPlace(t *testing.T, backend string, env ...string) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), record: filepath.Join(t.TempDir(), "record")}
	if err := os.WriteFile(filepath.Join(p.dir, "Pulumi.yaml"), []byte("name: app\nruntime: yaml\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.env = append([]string{"PATH=" + bin, "HOME=" + t.TempDir(), "PULUMI_BACKEND_URL=" + backend, "PULUMI_STANDIN_RECORD=" + p.record}, env...)
	return p
}

type event struct {
	Event, Signal string
	Argv          []string
	Pid           int
}

func (p *place) events() []event {
	content, _ := os.ReadFile(p.record)
	var out []event
	for line := range bytes.Lines(content) {
		var e event
		if json.Unmarshal(line, &e) == nil {
			out = append(out, e)
		}
	}
	return out
}

func (p *place) argvs() []string {
	var out []string
	for _, e := range p.events() {
		if e.Event == "start" {
			out = append(out, strings.Join(e.Argv[1:], " "))
		}
	}
	return out
}

func (p *place) signals() []string {
	var out []string
	for _, e := range p.events() {
		if e.Event == "signal" {
			out = append(out, e.Signal)
		}
	}
	return out
}

// await polls what other processes did until a condition holds.
func (p *place) await(what string, met func() bool) {
	p.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(20 * time.Second)
	for !met() {
		select {
		case <-tick.C:
		case <-timeout:
			p.t.Errorf("gave up waiting: %s; events %+v", what, p.events())
			return
		}
	}
}

func (p *place) request(op api.Operation, out io.Writer) pulumi.Request {
	return pulumi.Request{Operation: op, StackIdentity: "acme/app/dev", Dir: p.dir, Env: p.env, Stdout: out, Stderr: out}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for op, want := range map[api.Operation]string{
		api.OperationUpdate:         "up --yes --skip-preview --non-interactive --stack acme/app/dev",
		api.OperationPreview:        "preview --non-interactive --stack acme/app/dev",
		api.OperationRefresh:        "refresh --yes --skip-preview --non-interactive --stack acme/app/dev",
		api.OperationDestroy:        "destroy --yes --skip-preview --non-interactive --stack acme/app/dev",
		api.OperationDetectDrift:    "refresh --preview-only --expect-no-changes --non-interactive --stack acme/app/dev",
		api.OperationRemediateDrift: "up --refresh --yes --skip-preview --non-interactive --stack acme/app/dev",
	} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "https://service")
			var out bytes.Buffer
			code, err := pulumi.Run(t.Context(), p.request(op, &out))
			if code != 0 || err != nil {
				t.Fatalf("Run = %d, %v\n%s", code, err, &out)
			}
			if diff := cmp.Diff([]string{want}, p.argvs()); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDebugIsPassedOn(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "https://service")
	r := p.request(api.OperationPreview, io.Discard)
	r.Debug = true
	if _, err := pulumi.Run(t.Context(), r); err != nil || !slices.Contains(strings.Fields(p.argvs()[0]), "--debug") {
		t.Errorf("calls = %q, %v", p.argvs(), err)
	}
}

func TestStacksAreCreatedOnlyWhereThereIsNoService(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "file://"+t.TempDir())
	for run, want := range [][]string{
		{"stack select organization/app/dev --non-interactive", "stack init organization/app/dev --non-interactive", "up --yes --skip-preview --non-interactive --stack organization/app/dev"},
		{"stack select organization/app/dev --non-interactive", "up --yes --skip-preview --non-interactive --stack organization/app/dev"},
	} {
		_ = os.Remove(p.record)
		var out bytes.Buffer
		code, err := pulumi.Run(t.Context(), p.request(api.OperationUpdate, &out))
		if code != 0 || err != nil {
			t.Fatalf("run %d: %d, %v\n%s", run, code, err, &out)
		}
		if diff := cmp.Diff(want, p.argvs()); diff != "" {
			t.Errorf("run %d, calls (-want +got):\n%s", run, diff)
		}
		if said := strings.Contains(out.String(), "creating it"); said != (run == 0) {
			t.Errorf("run %d said:\n%s", run, &out)
		}
	}
}

func TestTheExitCodeIsPulumis(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "https://service", "PULUMI_STANDIN_EXIT=7")
	var out bytes.Buffer
	if code, err := pulumi.Run(t.Context(), p.request(api.OperationUpdate, &out)); code != 7 || err != nil {
		t.Errorf("Run = %d, %v\n%s", code, err, &out)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*pulumi.Request)
		want   string
	}{
		"unknown operation":   {func(r *pulumi.Request) { r.Operation = "explode" }, `unknown operation "explode"`},
		"stack identity":      {func(r *pulumi.Request) { r.StackIdentity = "app/dev" }, "want organization/project/stack"},
		"missing folder":      {func(r *pulumi.Request) { r.Dir = "/nowhere" }, "check repoDir"},
		"folder is a file":    {func(r *pulumi.Request) { r.Dir += "/Pulumi.yaml" }, "is a file"},
		"no pulumi":           {func(r *pulumi.Request) { r.Env = []string{"PATH=/nowhere"} }, "image must hold the Pulumi CLI"},
		"no PATH, no pulumi":  {func(r *pulumi.Request) { r.Env = nil }, "image must hold the Pulumi CLI"},
		"an unmended backend": {func(r *pulumi.Request) { r.Env = append(r.Env, "PULUMI_BACKEND_URL=file:///dev/null") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "https://service")
			var out bytes.Buffer
			r := p.request(api.OperationUpdate, &out)
			c.change(&r)
			code, err := pulumi.Run(t.Context(), r)
			if c.want == "" {
				if err != nil || code == 0 {
					t.Errorf("Run = %d, %v, want pulumi's own failure\n%s", code, err, &out)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Run = %d, %v, want %q", code, err, c.want)
			}
		})
	}
}

// start runs an update that takes a minute, and returns once pulumi is at it.
func (p *place) start(ctx context.Context, signals chan os.Signal, parent int) (wait func() (int, string)) {
	p.t.Helper()
	var (
		out  bytes.Buffer
		code int
		done sync.WaitGroup
	)
	done.Go(func() {
		r := p.request(api.OperationUpdate, &out)
		r.Signals, r.Parent = signals, parent
		var err error
		if code, err = pulumi.Run(ctx, r); err != nil {
			p.t.Errorf("Run: %v", err)
		}
	})
	p.await("start of the operation", func() bool {
		return slices.ContainsFunc(p.argvs(), func(a string) bool { return strings.HasPrefix(a, "up ") })
	})
	return func() (int, string) {
		done.Wait()
		return code, out.String()
	}
}

func TestManyInterruptsBecomeOne(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "https://service", "PULUMI_STANDIN_DURATION=1m")
	signals := make(chan os.Signal, 8)
	ctx, cancel := context.WithCancel(t.Context())
	wait := p.start(ctx, signals, 0)
	signals <- syscall.SIGINT
	signals <- syscall.SIGINT
	signals <- syscall.SIGINT
	cancel()
	code, out := wait()
	if diff := cmp.Diff([]string{"interrupt"}, p.signals()); diff != "" || code != 255 || !strings.Contains(out, "Cancelling...") {
		t.Errorf("code %d, signals (-want +got):\n%s\n%s", code, diff, out)
	}
}

func TestSIGTERMFirstIsAnInterruptAndGoesThroughAfterOne(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "https://service", "PULUMI_STANDIN_DURATION=1m", "PULUMI_STANDIN_IGNORE_SIGNALS=1")
	signals := make(chan os.Signal, 8)
	wait := p.start(t.Context(), signals, 0)
	signals <- syscall.SIGTERM
	p.await("the interrupt", func() bool { return len(p.signals()) == 1 })
	for range 3 {
		signals <- syscall.SIGTERM
	}
	p.await("SIGTERM", func() bool { return len(p.signals()) == 2 })
	if diff := cmp.Diff([]string{"interrupt", "terminated"}, p.signals()); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
	i := slices.IndexFunc(p.events(), func(e event) bool { return e.Event == "start" })
	_ = syscall.Kill(p.events()[i].Pid, syscall.SIGKILL)
	if code, _ := wait(); code != 128+9 {
		t.Errorf("code = %d, want 137", code)
	}
}

func TestTheDeathOfTheExecutorInterruptsPulumi(t *testing.T) {
	t.Parallel()
	executor := exec.Command("sleep", "60")
	if err := executor.Start(); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, "https://service", "PULUMI_STANDIN_DURATION=1m")
	wait := p.start(t.Context(), nil, executor.Process.Pid)
	_ = executor.Process.Kill()
	_ = executor.Wait()
	if code, out := wait(); code != 255 || !cmp.Equal(p.signals(), []string{"interrupt"}) {
		t.Errorf("code = %d, signals %q\n%s", code, p.signals(), out)
	}
}
