package runner_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
	"github.com/longshore-run/longshore/internal/ledger"
	"github.com/longshore-run/longshore/internal/logstream"
	"github.com/longshore-run/longshore/internal/runner"
	"github.com/longshore-run/longshore/internal/undelivered"
)

// leaves is an executor that loses the service and dies, with lines of step 1 in
// its spool.
func leaves(s *service, lines ...string) func(context.Context, fake.Job) backend.Exit {
	return func(_ context.Context, job fake.Job) backend.Exit {
		s.succeed(0)
		_ = s.Step(context.Background(), 1, api.StepRunning)
		s.set(func() { s.away = true })
		streams := logstream.New(logstream.Options{Sink: s, SpoolDir: filepath.Join(filepath.Dir(job.File.ReportPath), api.SpoolName)})
		for _, line := range lines {
			streams.Step(1).Line("%s", line)
		}
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = streams.Close(over)
		return backend.Exit{Code: 137, Report: &api.Report{Step: 1, Status: api.StepRunning}}
	}
}

func keeping(t *testing.T, s *service, script fake.Script) (before, undelivered.Store) {
	t.Helper()
	dir := t.TempDir()
	script.Directory = dir
	store := undelivered.In(t.TempDir())
	memory, err := ledger.Open(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	o := runner.Options{Ledger: memory, Undelivered: &store, SpoolDirectory: filepath.Join(dir, "spool"), DirectURL: "http://service"}
	return before{rig: newRig(s, script, o), memory: memory, dir: dir}, store
}

func TestWhatAnExecutorCouldNotDeliverIsDelivered(t *testing.T) {
	t.Parallel()
	const want = "one\ntwo\nthree\n"
	t.Run("while the agent still waits for the service", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			b, store := keeping(t, s, fake.Script{Executor: leaves(s, "one", "two", "three")})
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.r.Handle(t.Context(), work("d"))
			}()
			synctest.Wait()
			s.set(func() { s.away = false })
			<-done
			if log := b.log(1); !strings.HasPrefix(log, want) || !strings.Contains(log, "crashed with exit code 137") {
				t.Errorf("log %q, want the executor's lines, then what became of it", log)
			}
			if jobs, err := store.List(); len(jobs) != 0 || err != nil {
				t.Errorf("still kept: %v, %v", jobs, err)
			}
			b.clean(t)
		})
	})
	t.Run("later, and what the job ran in is gone meanwhile", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			b, store := keeping(t, s, fake.Script{Executor: leaves(s, "one", "two", "three")})
			b.r.Handle(t.Context(), work("d"))
			if jobs, err := store.List(); len(jobs) == 0 || err != nil || len(b.place.Jobs()) != 0 {
				t.Fatalf("kept: %v, %v; jobs %q", jobs, err, b.place.Jobs())
			}
			s.set(func() { s.away = false })
			b.r.Tidy(t.Context())
			if log := b.log(1); !strings.HasPrefix(log, want) || strings.Count(log, "crashed") != 1 || !strings.HasSuffix(b.history(), "1 failed") {
				t.Errorf("log %q, steps %q", log, b.history())
			}
			if jobs, err := store.List(); len(jobs) != 0 || err != nil {
				t.Errorf("still kept: %v, %v", jobs, err)
			}
			b.clean(t)
		})
	})
	t.Run("not when the service refuses it", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			b, store := keeping(t, s, fake.Script{Executor: leaves(s, "one")})
			b.r.Handle(t.Context(), work("d"))
			s.set(func() { s.away, s.gone = false, true })
			b.r.Tidy(t.Context())
			if jobs, err := store.List(); len(jobs) != 0 || err != nil {
				t.Errorf("still kept: %v, %v", jobs, err)
			}
			b.clean(t)
		})
	})
}

// clinging is a backend that cannot hand out spools, for a while.
type clinging struct {
	backend.Backend
	away *bool
}

func (c clinging) Start(ctx context.Context, spec backend.Spec, setup io.Writer) (backend.Workload, error) {
	w, err := c.Backend.Start(ctx, spec, setup)
	return clingingWorkload{w, c.away}, err
}

type clingingWorkload struct {
	backend.Workload
	away *bool
}

func (w clingingWorkload) Spool(ctx context.Context, dir string) (string, error) {
	if *w.away {
		return "", errors.New("the engine does not answer")
	}
	return w.Workload.Spool(ctx, dir)
}

func TestAWorkloadGoesOnceItsLogIsSafe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		dir, away := t.TempDir(), true
		store := undelivered.In(t.TempDir())
		memory, err := ledger.Open(filepath.Join(dir, "state"))
		if err != nil {
			t.Fatal(err)
		}
		place := fake.New(fake.Script{Directory: dir, Executor: leaves(s, "one", "two")})
		b := before{rig: newRig(s, fake.Script{}, runner.Options{
			Backend: clinging{place, &away}, Ledger: memory, Undelivered: &store, SpoolDirectory: filepath.Join(dir, "spool"),
		}), memory: memory}
		b.place = place
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.r.Handle(t.Context(), work("d"))
		}()
		synctest.Wait()
		s.set(func() { s.away = false })
		<-done
		if len(place.Jobs()) != 1 || !strings.HasSuffix(b.history(), "1 failed") {
			t.Fatalf("jobs %q, steps %q: want a reported job that is still there", place.Jobs(), b.history())
		}
		away = false
		b.r.Tidy(t.Context())
		if log := b.log(1); strings.Count(log, "crashed") != 1 {
			t.Errorf("log %q, want the end to be told once", log)
		}
		b.clean(t)
	})
}
