package runner_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
	"github.com/longshore-run/longshore/internal/ledger"
	"github.com/longshore-run/longshore/internal/runner"
)

// before is what an agent that was killed left behind.
type before struct {
	*rig
	memory *ledger.Ledger
	dir    string
}

// killed returns a rig whose agent was killed after it had noted e, unless e is
// nil, and after it had started the job, if started.
func killed(t *testing.T, s *service, script fake.Script, o runner.Options, e *ledger.Entry, started bool) before {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	memory, err := ledger.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Ledger = memory
	b := before{newRig(s, script, o), memory, dir}
	_ = s.Step(t.Context(), 0, api.StepRunning)
	_ = s.RawLogs(t.Context(), 0, api.LogBatch{Lines: []api.LogLine{{Text: "pulling the image\n"}, {Text: "pulled\n"}}}.AppendJSON(nil))
	if e != nil {
		if err := memory.Put(*e); err != nil {
			t.Fatal(err)
		}
	}
	if started {
		spec := backend.Spec{Job: api.JobFile{JobID: "job-d", DeploymentID: "d", Definition: s.def}}
		if _, err := b.place.Start(t.Context(), spec, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// claimed is the entry of a job that was claimed a minute ago and, if started is
// set, started.
func claimed(started bool) *ledger.Entry {
	e := &ledger.Entry{Work: work("d"), Claimed: time.Now().Add(-time.Minute)}
	if started {
		e.Started, e.Workload, e.Operation = time.Now().Add(-50*time.Second), "fake-job-d", api.OperationUpdate
	}
	return e
}

// recovers runs what Recover finds to its end.
func (b before) recovers(t *testing.T, ctx context.Context) {
	t.Helper()
	jobs, err := b.r.Recover(t.Context())
	if err != nil {
		t.Fatalf("Recover() = %v", err)
	}
	var all sync.WaitGroup
	for _, job := range jobs {
		all.Go(func() { job(ctx) })
	}
	all.Wait()
}

// clean checks that nothing is left, neither of the job nor in the ledger.
func (b before) clean(t *testing.T) {
	t.Helper()
	entries, err := b.memory.All()
	if err != nil || len(entries) != 0 {
		t.Errorf("the ledger has %v, %v, want nothing", entries, err)
	}
	if left := b.place.Jobs(); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestRecover(t *testing.T) {
	t.Parallel()
	ended := func(outcome string) *ledger.End {
		return &ledger.End{Outcome: outcome, Failed: true, Step: 1, Line: "Killed for a reason."}
	}
	for name, tc := range map[string]struct {
		entry    *ledger.Entry
		executor func(*service) func(context.Context, fake.Job) backend.Exit // nil: not started
		prepare  func(before)
		outcome  string
		history  string // its end
		step     int
		line     string // the last of that step's log
	}{
		"a job that runs is seen to its end": {
			entry:    claimed(true),
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit { return succeeded(s, time.Hour) },
			outcome:  "succeeded", history: "2 running, 2 succeeded", line: "pulled\n",
		},
		"a job whose start was not noted is seen to its end": {
			entry:    claimed(false),
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit { return succeeded(s, time.Hour) },
			outcome:  "succeeded", history: "2 running, 2 succeeded", line: "pulled\n",
		},
		"a job that crashed meanwhile is reported": {
			entry: claimed(true),
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return crashes(s, 1, backend.Exit{Code: 2, Reason: "panic: a bug"})
			},
			outcome: "executor-crashed", history: "1 running, 1 failed", step: 1, line: "panic: a bug",
		},
		"a job that ended without anybody seeing how is reported": {
			entry: claimed(true),
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return crashes(s, 1, backend.Exit{Code: backend.CodeUnknown, Reason: "nobody saw it"})
			},
			outcome: "executor-crashed", history: "1 running, 1 failed", step: 1, line: "ended without a report (nobody saw it)",
		},
		"a claim that was never begun fails at once, behind what was said before": {
			entry:   claimed(false),
			outcome: "never-started", history: "0 running, 0 failed", line: "Nothing was changed; deploy again.\n",
		},
		"a job that was made and not started is removed and fails": {
			entry:   claimed(false),
			prepare: func(b before) { b.place.Make("job-d", "d") },
			outcome: "never-started", history: "0 running, 0 failed", line: "Nothing was changed; deploy again.\n",
		},
		"a job that is gone was removed by somebody": {
			entry:   claimed(true),
			outcome: "removed", history: "0 running, 0 failed", line: "removed outside of the agent",
		},
		"a job that a restart of the host took with it is lost": {
			entry: func() *ledger.Entry {
				e := claimed(true)
				e.BootID = "another start of the host"
				return e
			}(),
			outcome: "host-lost", history: "0 running, 0 failed", line: "The agent's host was restarted",
		},
		"an end that the service was not told is told": {
			entry: func() *ledger.Entry {
				e := claimed(true)
				e.End = ended("out-of-memory")
				return e
			}(),
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return crashes(s, 1, backend.Exit{Code: 137})
			},
			outcome: "out-of-memory", history: "1 running, 1 failed", step: 1, line: "Killed for a reason.\n",
		},
		"a job that nobody remembers is watched, then removed": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit { return succeeded(s, time.Hour) },
			outcome:  "", history: "2 running, 2 succeeded", line: "pulled\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newService(definition())
				script := fake.Script{}
				if tc.executor != nil {
					script.Executor = tc.executor(s)
				}
				b := killed(t, s, script, runner.Options{}, tc.entry, tc.executor != nil)
				if tc.prepare != nil {
					tc.prepare(b)
				}
				synctest.Wait()
				b.recovers(t, t.Context())
				if got := b.outcomes(t); got != tc.outcome {
					t.Errorf("outcome %q, want %q", got, tc.outcome)
				}
				if h := b.history(); !strings.HasSuffix(h, tc.history) {
					t.Errorf("steps %q, want %q at the end", h, tc.history)
				}
				if log := b.log(tc.step); !strings.Contains(log, tc.line) || !strings.HasPrefix(b.log(0), "pulling the image\npulled\n") {
					t.Errorf("log of step %d: %q, want %q in it", tc.step, log, tc.line)
				}
				b.clean(t)
			})
		})
	}
}

func TestARecoveredJobIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		b := killed(t, s, fake.Script{Executor: obedient(s, 5*time.Minute)}, runner.Options{}, claimed(true), true)
		time.AfterFunc(time.Minute, s.cancel)
		b.recovers(t, t.Context())
		if b.outcomes(t) != "cancelled" || !strings.HasSuffix(b.history(), "2 failed") {
			t.Errorf("outcome %q, steps %q", b.outcomes(t), b.history())
		}
		b.clean(t)
	})
}

func TestTheTimeLimitOfARecoveredJobCountsFromItsStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		e := claimed(true)
		e.Operation, e.Timeout, e.Started = api.OperationPreview, api.Duration(2*time.Hour), time.Now().Add(-time.Hour)
		b := killed(t, s, fake.Script{Executor: obedient(s, 100*time.Hour)}, runner.Options{}, e, true)
		began := time.Now()
		b.recovers(t, t.Context())
		if took := time.Since(began); took < time.Hour || took > time.Hour+30*time.Minute || b.outcomes(t) != "timed-out" {
			t.Errorf("ended after %v with %q, want an hour and the ladder", took, b.outcomes(t))
		}
		b.clean(t)
	})
}

func TestARecoveredDeploymentIsNotStartedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		b := killed(t, s, fake.Script{Executor: succeeded(s, time.Minute)}, runner.Options{}, claimed(true), true)
		b.recovers(t, t.Context())
		again := work("d")
		again.JobID = "another"
		b.r.Handle(t.Context(), again)
		if b.outcomes(t) != "duplicate,succeeded" {
			t.Errorf("outcomes %q, want the second claim to be dropped", b.outcomes(t))
		}
	})
}

func TestNothingIsRecoveredFromABackendThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		away := errors.New("no engine")
		b := killed(t, s, fake.Script{Check: func(context.Context) error { return away }, Executor: succeeded(s, time.Hour)}, runner.Options{}, claimed(true), true)
		if _, err := b.r.Recover(t.Context()); !errors.Is(err, away) {
			t.Fatalf("Recover() = %v, want %v", err, away)
		}
		away = nil
		b.recovers(t, t.Context())
		if b.outcomes(t) != "succeeded" {
			t.Errorf("outcome %q", b.outcomes(t))
		}
		b.clean(t)
	})
}

func TestAJobThatCannotBeNotedIsNotBegun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		memory, err := ledger.Open(filepath.Join(t.TempDir(), "state"))
		if err != nil {
			t.Fatal(err)
		}
		g := newRig(s, fake.Script{Executor: succeeded(s, 0)}, runner.Options{Ledger: memory})
		w := work("d")
		w.JobID = strings.Repeat("long", 100) // longer than the name of a file may be
		g.r.Handle(t.Context(), w)
		if g.outcomes(t) != "start-failed" || g.history() != "0 failed" || !strings.Contains(g.log(0), "did not begin it") {
			t.Errorf("outcome %q, steps %q, log %q", g.outcomes(t), g.history(), g.log(0))
		}
	})
}

func TestTidy(t *testing.T) {
	t.Parallel()
	t.Run("tells an end once the service is back", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			b := killed(t, s, fake.Script{Executor: func(context.Context, fake.Job) backend.Exit {
				s.succeed(0)
				s.set(func() { s.away = true })
				return backend.Exit{Code: 2}
			}}, runner.Options{}, nil, false)
			b.r.Handle(t.Context(), work("d"))
			b.r.Tidy(t.Context()) // in vain
			if entries, _ := b.memory.All(); len(entries) != 1 || entries[0].End == nil {
				t.Fatalf("the ledger has %+v, want the end", entries)
			}
			s.set(func() { s.away = false })
			b.r.Tidy(t.Context())
			if h := b.history(); !strings.HasSuffix(h, "1 failed") || !strings.Contains(b.log(1), "crashed with exit code 2") {
				t.Errorf("steps %q, log %q", h, b.log(1))
			}
			b.clean(t)
		})
	})
	t.Run("forgets an end that the service does not want to know", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			e := claimed(true)
			e.End = &ledger.End{Outcome: "removed", Failed: true, Step: -2, Line: "gone"}
			b := killed(t, s, fake.Script{}, runner.Options{}, e, false)
			s.set(func() { s.gone = true })
			b.r.Tidy(t.Context())
			b.clean(t)
		})
	})
	t.Run("removes what could not be removed, and nothing in hand", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			b := killed(t, s, fake.Script{Executor: obedient(s, 0)}, runner.Options{}, nil, false)
			var job sync.WaitGroup
			job.Go(func() { b.r.Handle(t.Context(), work("d")) })
			synctest.Wait()
			b.place.Make("job-left", "left")
			b.r.Tidy(t.Context())
			if left := b.place.Jobs(); len(left) != 1 || left[0] != "job-d" {
				t.Errorf("jobs %q, want the one in hand alone", left)
			}
			s.cancel()
			job.Wait()
			b.clean(t)
		})
	})
	t.Run("leaves failed jobs that are kept", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			b := killed(t, s, fake.Script{Executor: crashes(s, 1, backend.Exit{Code: 1})}, runner.Options{KeepFailed: true}, nil, false)
			b.r.Handle(t.Context(), work("d"))
			b.r.Tidy(t.Context())
			if left := b.place.Jobs(); len(left) != 1 {
				t.Errorf("jobs %q, want the failed one", left)
			}
		})
	})
}
