package process_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/backendtest"
	"github.com/longshore-run/longshore/internal/backend/process"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		backendtest.RemoveExecutor()
		os.Exit(code)
	}))
}

func newBackend(t *testing.T, dir string, source backend.ExecutorSource) backend.Backend {
	t.Helper()
	b, err := process.New(process.Config{Directory: dir, ExecutorSource: source, Env: os.Environ(), Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContract(t *testing.T) {
	dir := t.TempDir()
	source := backendtest.Source(t)
	job := func(id string) string { return filepath.Join(dir, "jobs", id) }
	backendtest.Run(t, backendtest.Harness{
		New:   func(t *testing.T) backend.Backend { return newBackend(t, dir, source) },
		Next:  func(t *testing.T, _ backend.Backend) backend.Backend { return newBackend(t, dir, source) },
		Other: func(t *testing.T) backend.Backend { return newBackend(t, t.TempDir(), source) },
		Half: func(t *testing.T, _ backend.Backend, spec backend.Spec) {
			if err := os.MkdirAll(filepath.Join(job(spec.Job.JobID), "work"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		File: func(_ *testing.T, id, name string) ([]byte, bool) {
			data, err := os.ReadFile(filepath.Join(job(id), name))
			return data, err == nil
		},
		Left: func(_ *testing.T, id string) []string {
			left := processes(job(id))
			if _, err := os.Stat(job(id)); err == nil {
				left = append(left, job(id))
			}
			return left
		},
		Describe: func(_ *testing.T, id string) string { return strings.Join(processes(job(id)), "\n") },
		SlowStart: func(t *testing.T) (backend.Backend, api.DockerImage) {
			return newBackend(t, dir, func(ctx context.Context, _ string) (string, error) {
				<-ctx.Done()
				return "", context.Cause(ctx)
			}), api.DockerImage{}
		},
		BrokenStart: map[string]func(*testing.T, backend.Spec) (backend.Backend, backend.Spec){
			"an executor that is none": func(t *testing.T, spec backend.Spec) (backend.Backend, backend.Spec) {
				path := filepath.Join(t.TempDir(), "executor")
				if err := os.WriteFile(path, []byte("no program"), 0o700); err != nil {
					t.Fatal(err)
				}
				return newBackend(t, dir, func(context.Context, string) (string, error) { return path, nil }), spec
			},
			"an executor that cannot be had": func(t *testing.T, spec backend.Spec) (backend.Backend, backend.Spec) {
				return newBackend(t, dir, func(context.Context, string) (string, error) { return "", errors.New("gone") }), spec
			},
		},
	})
}

// processes returns command line and environment of every process that names
// dir in either of them.
func processes(dir string) []string {
	var found []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		args, _ := os.ReadFile(path)
		environ, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if all := append(append(args, 0), environ...); bytes.Contains(all, []byte(dir)) {
			found = append(found, string(all))
		}
	}
	return found
}

func TestOnlyTheAllowListReachesJobs(t *testing.T) {
	dir := t.TempDir()
	b, err := process.New(process.Config{
		Directory: dir, ExecutorSource: backendtest.Source(t),
		Env: []string{
			"PATH=/bin", "HOME=/home/agent", "LANG=C.UTF-8", "LC_ALL=C", "HTTPS_PROXY=http://proxy", "no_proxy=localhost",
			"LONGSHORE_AGENT_TOKEN=lsp-x", "PULUMI_ACCESS_TOKEN=pul-x", "AWS_SECRET_ACCESS_KEY=x", "PATHOLOGY=x", "LCD=x",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := backendtest.Harness{}.Spec("environ", "report succeeded")
	spec.Env = map[string]string{"LANG": "from the spec"}
	w, err := b.Start(t.Context(), spec, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Remove(context.WithoutCancel(t.Context())) }()
	exit, err := w.Wait(t.Context())
	if err != nil || exit.Report == nil {
		t.Fatalf("Wait() = %+v, %v", exit, err)
	}
	want := []string{
		"HOME=/home/agent", "HTTPS_PROXY=http://proxy", "LANG=from the spec", "LC_ALL=C",
		"LONGSHORE_JOB_DIRECTORY=" + filepath.Join(dir, "jobs", spec.Job.JobID), "PATH=/bin", "no_proxy=localhost",
	}
	if got := strings.Split(exit.Report.Message, "\n"); !slices.Equal(got, want) {
		t.Errorf("environment = %q, want %q", got, want)
	}
}

func TestStartRefuses(t *testing.T) {
	dir := t.TempDir()
	b := newBackend(t, dir, backendtest.Source(t))
	for name, id := range map[string]string{
		"an id that leaves the directory": "../escaped",
		"an id that is the directory":     ".",
		"no id":                           "",
	} {
		t.Run(name, func(t *testing.T) {
			spec := backendtest.Harness{}.Spec("hang")
			spec.Job.JobID = id
			if w, err := b.Start(t.Context(), spec, io.Discard); err == nil {
				_ = w.Remove(t.Context())
				t.Error("Start() = nil, want an error")
			}
		})
	}
	t.Run("a job that was started before, and does not touch it", func(t *testing.T) {
		spec := backendtest.Harness{}.Spec("report succeeded")
		kept := filepath.Join(dir, "jobs", spec.Job.JobID, "kept")
		if err := os.MkdirAll(kept, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Start(t.Context(), spec, io.Discard); err == nil {
			t.Error("Start() = nil, want an error")
		}
		if _, err := os.Stat(kept); err != nil {
			t.Errorf("what was there before: %v", err)
		}
	})
}

func TestCheckSaysWhatToDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := newBackend(t, filepath.Join(file, "below"), backendtest.Source(t)).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "name another directory") {
		t.Errorf("Check() = %v, want what to do", err)
	}
}
