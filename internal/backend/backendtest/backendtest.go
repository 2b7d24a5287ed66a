// Package backendtest is the conformance suite of package backend: what its
// contract promises, each promise a test. A new backend passes it, or is not
// one.
package backendtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

// Harness is what a backend's own test tells the suite. Only New must be set;
// a promise that cannot be looked at is not tested.
type Harness struct {
	// New returns a backend. The suite makes several.
	New func(t *testing.T) backend.Backend
	// Next returns the backend of a later process of the agent that b is of.
	Next func(t *testing.T, b backend.Backend) backend.Backend
	// Other returns the backend of another agent in the same place.
	Other func(t *testing.T) backend.Backend
	// Half leaves a job as an agent does that is killed before it starts the
	// executor.
	Half func(t *testing.T, b backend.Backend, spec backend.Spec)
	// Image is put into every spec.
	Image api.DockerImage
	// File reads a file that the executor put beside its report, while the job
	// runs. ok is false while there is none.
	File func(t *testing.T, jobID, name string) (data []byte, ok bool)
	// Left lists what there is of a job outside of the agent: containers,
	// directories, processes.
	Left func(t *testing.T, jobID string) []string
	// Describe returns everything that others than the job can see of a running
	// one: process lists, environments, descriptions.
	Describe func(t *testing.T, jobID string) string
	// Lose removes a running job, as an operator would.
	Lose func(t *testing.T, jobID string)
	// Labels returns the labels of a running job.
	Labels func(t *testing.T, jobID string) map[string]string
	// EnforcesMemory says that Limits.MemoryBytes is kept.
	EnforcesMemory bool
	// Isolates says that a job cannot see another one's files even when it knows
	// their path.
	Isolates bool
	// SlowStart makes a Start that waits until ctx ends: its backend, and the
	// image to ask for. It stands for a pull that takes long.
	SlowStart func(t *testing.T) (backend.Backend, api.DockerImage)
	// BrokenStart makes Starts that fail, by what is wrong with them.
	BrokenStart map[string]func(t *testing.T, spec backend.Spec) (backend.Backend, backend.Spec)
}

// patience bounds everything that the suite waits for.
const patience = 60 * time.Second

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "longshore-testexecutor-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "longshore-executor")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-ldflags", "-s -w", "-o", path,
		"github.com/longshore-run/longshore/internal/backend/backendtest/testexecutor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the test executor: %w\n%s", err, out)
	}
	return path, nil
})

// Executor returns the path of the suite's executor, for this machine's
// architecture. It is built once in a test binary.
func Executor(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// RemoveExecutor removes what Executor built. TestMain calls it last.
func RemoveExecutor() {
	if path, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
}

// Source is Executor as an ExecutorSource.
func Source(t *testing.T) backend.ExecutorSource {
	path := Executor(t)
	return func(context.Context, string) (string, error) { return path, nil }
}

// Spec returns a job that plays script, one command a line, with an id of its
// own. See testexecutor for the commands.
func (h Harness) Spec(script ...string) backend.Spec {
	id := uuid.NewString()
	image := h.Image
	return backend.Spec{
		Pool: "suite", Agent: "agent-1",
		Image: image,
		Job: api.JobFile{
			ServiceURL: "http://127.0.0.1:1", JobID: id, DeploymentID: uuid.NewString(),
			JobToken: "lsj-secret-" + id,
			Definition: api.JobDefinition{
				Image: &image,
				Env:   map[string]string{"DEFINED": "defined-secret-" + id},
				Steps: []api.Step{{Name: "Setup"}, {Name: "script", Run: strings.Join(script, "\n")}},
			},
		},
	}
}

// start starts a job and removes it at the end of the test.
func (h Harness) start(t *testing.T, b backend.Backend, spec backend.Spec) backend.Workload {
	t.Helper()
	var setup strings.Builder
	w, err := b.Start(t.Context(), spec, &setup)
	if err != nil {
		t.Fatalf("Start() = %v, want a workload; setup log:\n%s", err, setup.String())
	}
	if w.ID() == "" {
		t.Error("ID() is empty")
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := w.Remove(ctx); err != nil {
			t.Errorf("Remove() = %v, want no error", err)
		}
	})
	return w
}

// run starts a job and waits for its end.
func (h Harness) run(t *testing.T, script ...string) backend.Exit {
	t.Helper()
	return wait(t, h.start(t, h.New(t), h.Spec(script...)))
}

func wait(t *testing.T, w backend.Workload) backend.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	exit, err := w.Wait(ctx)
	if err != nil {
		t.Fatalf("Wait() = %v, want an exit", err)
	}
	return exit
}

// message returns what the executor found out, line by line.
func message(t *testing.T, exit backend.Exit) []string {
	t.Helper()
	if exit.Report == nil {
		t.Fatalf("Wait() = %+v, want a report", exit)
	}
	return strings.Split(exit.Report.Message, "\n")
}

// ready waits until the executor played its "ready".
func (h Harness) ready(t *testing.T, spec backend.Spec) {
	t.Helper()
	if h.File == nil {
		t.Skip("this backend's test cannot look into a running job")
	}
	eventually(t, "the executor is ready", func() bool {
		_, ok := h.File(t, spec.Job.JobID, "ready")
		return ok
	})
}

// gone checks that nothing is left of a job.
func (h Harness) gone(t *testing.T, spec backend.Spec) {
	t.Helper()
	if h.Left == nil {
		return
	}
	if left := h.Left(t, spec.Job.JobID); len(left) > 0 {
		t.Errorf("left behind: %q, want nothing", left)
	}
}

// eventually polls a condition that no channel tells of.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited for %s: in vain", what)
		}
	}
}
