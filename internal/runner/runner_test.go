package runner_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
	"github.com/longshore-run/longshore/internal/runner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const jobToken = "lsj-0123456789abcdef"

func work(id string) api.AgentWorkflowDefinition {
	return api.AgentWorkflowDefinition{TypeSpecificID: id, JobID: "job-" + id, JobToken: jobToken}
}

func definition() api.JobDefinition {
	return api.JobDefinition{
		OS: "linux", Image: &api.DockerImage{Reference: "acme/pulumi:1"}, Operation: api.OperationUpdate,
		Steps: []api.Step{{Name: "Setup"}, {Name: "Get source", Run: "true"}, {Name: "Pulumi operation", Run: "true"}},
	}
}

// succeeded is an executor whose job ends well after a while.
func succeeded(s *service, after time.Duration) func(context.Context, fake.Job) backend.Exit {
	return func(_ context.Context, _ fake.Job) backend.Exit {
		time.Sleep(after)
		s.succeed(2)
		return backend.Exit{Report: &api.Report{Step: 2, Status: api.StepSucceeded, Delivered: true, Outcome: api.OutcomeSucceeded}}
	}
}

// crashes is an executor that gets as far as a step and ends without a word.
func crashes(s *service, step int, exit backend.Exit) func(context.Context, fake.Job) backend.Exit {
	return func(context.Context, fake.Job) backend.Exit {
		s.succeed(step - 1)
		if step > 0 {
			_ = s.Step(context.Background(), step, api.StepRunning)
			_ = s.RawLogs(context.Background(), step, api.LogBatch{Lines: []api.LogLine{{Text: "$ step\n"}}}.AppendJSON(nil))
			exit.Report = &api.Report{Step: step, Status: api.StepRunning}
		}
		return exit
	}
}

// obedient is an executor that runs until it is asked to cancel, and then takes
// a while.
func obedient(s *service, takes time.Duration) func(context.Context, fake.Job) backend.Exit {
	return func(ctx context.Context, job fake.Job) backend.Exit {
		s.succeed(1)
		_ = s.Step(ctx, 2, api.StepRunning)
		select {
		case <-job.Stop:
		case <-ctx.Done():
			return backend.Exit{}
		}
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return backend.Exit{}
		}
		_ = s.Step(ctx, 2, api.StepFailed)
		return backend.Exit{Code: api.ExitCancelled, Report: &api.Report{Step: 2, Status: api.StepFailed, Delivered: true, Outcome: api.OutcomeCancelled}}
	}
}

// rig is a runner with a service and a backend made for one job.
type rig struct {
	*service
	place   *fake.Backend
	metrics *prometheus.Registry
	r       *runner.Runner
}

func newRig(s *service, script fake.Script, o runner.Options) *rig {
	g := &rig{service: s, place: fake.New(script), metrics: prometheus.NewRegistry()}
	if o.Backend == nil {
		o.Backend = g.place
	}
	o.Pool, o.NewJob = s, func(string, string) runner.Job { return s }
	o.ServiceURL, o.DefaultImage = "http://service", "pulumi/pulumi:latest"
	o.Metrics = runner.NewMetrics(g.metrics)
	g.r = runner.New(o)
	return g
}

func (g *rig) outcomes(t *testing.T) string {
	t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if f.GetName() != "longshore_agent_jobs_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetCounter().GetValue() > 0 {
				got = append(got, m.GetLabel()[0].GetValue())
			}
		}
	}
	return strings.Join(got, ",")
}

func TestHowJobsEnd(t *testing.T) {
	t.Parallel()
	delivered := func(step int, o api.Outcome) backend.Exit {
		return backend.Exit{Code: o.ExitCode(), Report: &api.Report{Step: step, Status: api.StepFailed, Delivered: true, Outcome: o}}
	}
	for name, tc := range map[string]struct {
		def      func(*api.JobDefinition)
		executor func(*service) func(context.Context, fake.Job) backend.Exit
		prepare  error
		limits   backend.Limits
		outcome  string
		history  string
		step     int
		line     string // in the log of that step
	}{
		"the executor says it succeeded": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit { return succeeded(s, time.Minute) },
			outcome:  "succeeded", history: "0 running, 0 succeeded, 1 running, 1 succeeded, 2 running, 2 succeeded",
			step: 0, line: "started fake-job-d\n",
		},
		"the executor says a step failed": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return func(ctx context.Context, _ fake.Job) backend.Exit {
					s.succeed(0)
					_ = s.Step(ctx, 1, api.StepFailed)
					return delivered(1, api.OutcomeStepFailed)
				}
			},
			outcome: "step-failed", history: "0 running, 0 succeeded, 1 failed",
		},
		"exit code 0 proves nothing": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return crashes(s, 0, backend.Exit{})
			},
			outcome: "executor-crashed", history: "0 running, 0 failed", step: 0, line: "without a word (exit code 0 and no report)",
		},
		"the executor crashes in a step": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return crashes(s, 2, backend.Exit{Code: 139, Reason: "killed by SIGSEGV"})
			},
			outcome: "executor-crashed", history: "0 running, 0 succeeded, 1 running, 1 succeeded, 2 running, 2 failed",
			step: 2, line: "$ step\nThe executor crashed with exit code 139 (killed by SIGSEGV).",
		},
		"the executor crashes before the service has heard of the steps before": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return func(context.Context, fake.Job) backend.Exit {
					s.succeed(0)
					return backend.Exit{Code: 137, Report: &api.Report{Step: 2, Status: api.StepRunning}}
				}
			},
			outcome: "executor-crashed", history: "0 running, 0 succeeded, 1 running, 1 succeeded, 2 failed",
			step: 2, line: "The executor crashed with exit code 137",
		},
		"the executor crashes between two steps": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return func(context.Context, fake.Job) backend.Exit {
					s.succeed(1)
					return backend.Exit{Code: 137, Report: &api.Report{Step: 1, Status: api.StepSucceeded}}
				}
			},
			outcome: "executor-crashed", history: "0 running, 0 succeeded, 1 running, 1 succeeded, 2 failed",
			step: 2, line: "The executor crashed with exit code 137",
		},
		"the executor crashes after the last step and before the service has heard of it": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return func(context.Context, fake.Job) backend.Exit {
					s.succeed(1)
					return backend.Exit{Code: 137, Report: &api.Report{Step: 2, Status: api.StepSucceeded}}
				}
			},
			outcome: "executor-crashed", history: "0 running, 0 succeeded, 1 running, 1 succeeded, 2 failed",
			step: 2, line: "The executor crashed with exit code 137",
		},
		"the executor crashes after it ended Setup": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return func(context.Context, fake.Job) backend.Exit {
					s.succeed(0)
					return backend.Exit{Code: 2}
				}
			},
			outcome: "executor-crashed", history: "0 running, 0 succeeded, 1 running, 1 failed", step: 1, line: "exit code 2.",
		},
		"out of memory names the limit": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return crashes(s, 2, backend.Exit{Code: 137, OutOfMemory: true})
			},
			limits:  backend.Limits{MemoryBytes: 512 << 20},
			outcome: "out-of-memory", history: "0 running, 0 succeeded, 1 running, 1 succeeded, 2 running, 2 failed",
			step: 2, line: "more than its 512 MiB of memory. Give jobs more (job_memory)",
		},
		"a step that ran out of memory is explained": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return func(ctx context.Context, _ fake.Job) backend.Exit {
					s.succeed(1)
					_ = s.Step(ctx, 2, api.StepFailed)
					exit := delivered(2, api.OutcomeStepFailed)
					exit.OutOfMemory = true
					return exit
				}
			},
			outcome: "out-of-memory", history: "0 running, 0 succeeded, 1 running, 1 succeeded, 2 failed",
			step: 2, line: "because the host ran out of memory",
		},
		"success that was not delivered is delivered": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return func(context.Context, fake.Job) backend.Exit {
					return backend.Exit{Report: &api.Report{Step: 2, Status: api.StepSucceeded, Outcome: api.OutcomeSucceeded}}
				}
			},
			outcome: "succeeded", history: "0 running, 0 succeeded, 1 running, 1 succeeded, 2 running, 2 succeeded",
			step: 2, line: "the last lines of its log may be missing",
		},
		"so is failure": {
			executor: func(s *service) func(context.Context, fake.Job) backend.Exit {
				return func(context.Context, fake.Job) backend.Exit {
					return backend.Exit{Code: 14, Report: &api.Report{Step: 1, Status: api.StepFailed, Outcome: api.OutcomeServiceLost, Message: "gave up after 10m"}}
				}
			},
			outcome: "service-lost", history: "0 running, 0 succeeded, 1 failed", step: 1, line: "gave up after 10m",
		},
		"a bad definition says what is wrong": {
			def:     func(d *api.JobDefinition) { d.Image, d.OS = nil, "plan9" },
			outcome: "bad-definition", history: "0 failed", step: 0, line: "  image: missing",
		},
		"what the backend says is for the owner": {
			prepare: &backend.StartError{Reason: "image", Err: errors.New("image acme/pulumi:1 does not exist, token " + jobToken)},
			outcome: "start-failed", history: "0 running, 0 failed", step: 0, line: "could not be started: image acme/pulumi:1 does not exist, token [",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				def := definition()
				if tc.def != nil {
					tc.def(&def)
				}
				s := newService(def)
				script := fake.Script{Prepare: func(context.Context, backend.Spec, io.Writer) error { return tc.prepare }}
				if tc.executor != nil {
					script.Executor = tc.executor(s)
				}
				g := newRig(s, script, runner.Options{Limits: tc.limits})
				g.r.Handle(t.Context(), work("d"))
				if got := g.outcomes(t); got != tc.outcome {
					t.Errorf("outcome = %q, want %q", got, tc.outcome)
				}
				if got := g.history(); got != tc.history {
					t.Errorf("steps went %q, want %q", got, tc.history)
				}
				if got := g.log(tc.step); !strings.Contains(got, tc.line) || strings.Contains(got, jobToken) {
					t.Errorf("log of step %d:\n%s\nwant %q and no token", tc.step, got, tc.line)
				}
				if left := g.place.Jobs(); len(left) != 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		})
	}
}

func TestHeartbeatsAreTheExecutorsOnceItRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: succeeded(s, time.Hour)}, runner.Options{})
		g.r.Handle(t.Context(), work("d"))
		if beats, asked := g.counts(); beats != 0 || asked > 125 {
			t.Errorf("%d heartbeats of the agent while the executor ran, %d questions in an hour, want 0 and 120", beats, asked)
		}
	})
}

func TestAJobThatTheServiceEndedIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*service){
		"before the definition": func(s *service) { s.gone = true },
		"before setup":          func(s *service) { s.steps[0] = api.StepFailed },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newService(definition())
				prepare(s)
				g := newRig(s, fake.Script{}, runner.Options{})
				g.r.Handle(t.Context(), work("d"))
				if g.outcomes(t) != "not-ours" || g.history() != "" || g.log(0) != "" {
					t.Errorf("outcome %q, steps %q, log %q", g.outcomes(t), g.history(), g.log(0))
				}
			})
		})
	}
	t.Run("while preparing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			g := newRig(s, fake.Script{Prepare: func(ctx context.Context, _ backend.Spec, _ io.Writer) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}}, runner.Options{})
			time.AfterFunc(5*time.Minute, func() { s.set(func() { s.gone = true }) })
			began := time.Now()
			g.r.Handle(t.Context(), work("d"))
			if took := time.Since(began); g.outcomes(t) != "not-ours" || took > 6*time.Minute {
				t.Errorf("outcome %q after %v, want a heartbeat to find out", g.outcomes(t), took)
			}
		})
	})
}

func TestADeploymentIsStartedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		starts := 0
		g := newRig(s, fake.Script{Executor: func(context.Context, fake.Job) backend.Exit {
			starts++
			return backend.Exit{Report: &api.Report{Delivered: true, Outcome: api.OutcomeSucceeded}}
		}}, runner.Options{})
		g.r.Handle(t.Context(), work("d"))
		again := work("d")
		again.JobID = "another"
		g.r.Handle(t.Context(), again)
		if starts != 1 || g.outcomes(t) != "duplicate,succeeded" {
			t.Errorf("%d starts, outcomes %q", starts, g.outcomes(t))
		}
	})
}

func TestALostWorkloadIsExplained(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: obedient(s, 0)}, runner.Options{})
		time.AfterFunc(time.Minute, func() { g.place.Lose("job-d") })
		g.r.Handle(t.Context(), work("d"))
		log := g.log(0) + g.log(1) + g.log(2)
		if g.outcomes(t) != "removed" || !strings.Contains(log, "removed outside of the agent") {
			t.Errorf("outcome %q, logs %q", g.outcomes(t), log)
		}
		if h := g.history(); !strings.HasSuffix(h, "failed") {
			t.Errorf("steps %q, want the job to have failed", h)
		}
	})
}

// TestAnExecutorThatNeverGotItsJobHasChangedNothing: its agent ended between the
// start of the container and the job file.
func TestAnExecutorThatNeverGotItsJobHasChangedNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: func(context.Context, fake.Job) backend.Exit {
			return backend.Exit{Code: api.ExitNotBegun, Reason: "the executor printed: job file -: unexpected end of JSON input"}
		}}, runner.Options{})
		g.r.Handle(t.Context(), work("d"))
		if g.outcomes(t) != "never-started" || !strings.Contains(g.log(0), "Nothing was changed") || strings.Contains(g.log(0), "pulumi cancel") {
			t.Errorf("outcome %q, log %q", g.outcomes(t), g.log(0))
		}
		if h := g.history(); !strings.HasSuffix(h, "0 failed") {
			t.Errorf("steps %q", h)
		}
	})
}

// TestAJobThatSomebodyElseStopsSaysSo: its executor took a signal for a cancel,
// and its agent, which sent none, knows better.
func TestAJobThatSomebodyElseStopsSaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: func(ctx context.Context, _ fake.Job) backend.Exit {
			s.succeed(1)
			_ = s.Step(ctx, 2, api.StepRunning)
			_ = s.Step(ctx, 2, api.StepFailed)
			return backend.Exit{Code: api.ExitCancelled, Report: &api.Report{
				Step: 2, Status: api.StepFailed, Delivered: true, Outcome: api.OutcomeCancelled, Signalled: true,
			}}
		}}, runner.Options{})
		g.r.Handle(t.Context(), work("d"))
		if g.outcomes(t) != "stopped" || !strings.Contains(g.log(2), "told to stop") {
			t.Errorf("outcome %q, log %q", g.outcomes(t), g.log(2))
		}
		if h := g.history(); !strings.HasSuffix(h, "2 running, 2 failed") {
			t.Errorf("steps %q, want the status told once", h)
		}
	})
}

func TestAPanicFailsTheJobOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Prepare: func(context.Context, backend.Spec, io.Writer) error { panic("a bug") }}, runner.Options{})
		g.r.Handle(t.Context(), work("d"))
		if g.outcomes(t) != "internal-error" || g.history() != "0 running, 0 failed" || !strings.Contains(g.log(0), "Internal error of the agent") {
			t.Errorf("outcome %q, steps %q, log %q", g.outcomes(t), g.history(), g.log(0))
		}
	})
}

// unsure is a backend whose workloads cannot be waited for, for a while.
type unsure struct {
	backend.Backend
	until time.Time
}

func (u unsure) Start(ctx context.Context, spec backend.Spec, setup io.Writer) (backend.Workload, error) {
	w, err := u.Backend.Start(ctx, spec, setup)
	return unsureWorkload{w, u.until}, err
}

type unsureWorkload struct {
	backend.Workload
	until time.Time
}

func (w unsureWorkload) Wait(ctx context.Context) (backend.Exit, error) {
	if time.Now().Before(w.until) {
		return backend.Exit{}, errors.New("the engine does not answer")
	}
	return w.Workload.Wait(ctx)
}

func TestAJobIsNotGivenUpWhileItsBackendIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		place := fake.New(fake.Script{Executor: succeeded(s, time.Minute)})
		g := newRig(s, fake.Script{}, runner.Options{Backend: unsure{place, time.Now().Add(time.Hour)}})
		g.r.Handle(t.Context(), work("d"))
		if g.outcomes(t) != "succeeded" || len(place.Jobs()) != 0 {
			t.Errorf("outcome %q, left %q", g.outcomes(t), place.Jobs())
		}
	})
}

func TestKeepFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: crashes(s, 1, backend.Exit{Code: 1})}, runner.Options{KeepFailed: true})
		g.r.Handle(t.Context(), work("d"))
		if left := g.place.Jobs(); len(left) != 1 {
			t.Errorf("Jobs() = %q, want the failed one to be kept", left)
		}
	})
}

// TestLastWordsComeBeforeTheEnd: who sees that a deployment has failed, and reads
// its log, finds the reason there.
func TestLastWordsComeBeforeTheEnd(t *testing.T) {
	t.Parallel()
	for _, report := range []*api.Report{nil, {Step: 1, Status: api.StepRunning}} {
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			g := newRig(s, fake.Script{Executor: func(context.Context, fake.Job) backend.Exit {
				s.succeed(0)
				return backend.Exit{Code: 137, Report: report}
			}}, runner.Options{})
			g.r.Handle(t.Context(), work("d"))
			if got := g.log(1); !strings.Contains(got, "exit code 137") || s.late != 0 {
				t.Errorf("log %q, %d lines of it after the end", got, s.late)
			}
		})
	}
}

func TestLastWordsWaitForTheService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: func(context.Context, fake.Job) backend.Exit {
			s.succeed(0)
			s.set(func() { s.away = true })
			return backend.Exit{Code: 1}
		}}, runner.Options{})
		began := time.Now()
		g.r.Handle(t.Context(), work("d"))
		if took := time.Since(began); took > 11*time.Minute {
			t.Errorf("gave up after %v, want ten minutes at most", took)
		}
		if left := g.place.Jobs(); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestWhatIsStarted(t *testing.T) {
	t.Parallel()
	credentials := &api.ImageCredentials{Username: "u", Password: api.NewSecret("p")}
	for name, tc := range map[string]struct {
		image api.DockerImage
		o     runner.Options
		want  api.DockerImage
	}{
		"the definition's image":           {image: api.DockerImage{Reference: "a:1", Credentials: credentials}, want: api.DockerImage{Reference: "a:1", Credentials: credentials}},
		"the agent's default":              {image: api.DockerImage{Reference: "a:1", IsDefault: true}, want: api.DockerImage{Reference: "pulumi/pulumi:latest"}},
		"an override, without credentials": {image: api.DockerImage{Reference: "a:1", Credentials: credentials}, o: runner.Options{OverrideImage: "b:2"}, want: api.DockerImage{Reference: "b:2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				def := definition()
				def.Image = &tc.image
				tc.o.Env = map[string]string{"AWS_REGION": "eu-north-1"}
				tc.o.AgentName, tc.o.PoolName, tc.o.StepTimeout = "host", "pool", time.Minute
				var got backend.Spec
				g := newRig(newService(def), fake.Script{Prepare: func(_ context.Context, spec backend.Spec, _ io.Writer) error {
					got = spec
					return nil
				}}, tc.o)
				g.r.Handle(t.Context(), work("d"))
				if got.Image.Reference != tc.want.Reference || got.Image.Credentials != tc.want.Credentials {
					t.Errorf("Image = %v, want %v", got.Image, tc.want)
				}
				f := got.Job
				if got.Agent != "host" || got.Pool != "pool" || f.JobToken != jobToken || f.ServiceURL != "http://service" ||
					f.DeploymentID != "d" || f.StepTimeout.Std() != time.Minute || f.ChangeGrace.Std() != 10*time.Minute ||
					!maps.Equal(f.Env, tc.o.Env) || len(got.Env) != 0 {
					t.Errorf("Spec = %+v", got)
				}
			})
		})
	}
}

func TestMetricsHaveNoIds(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	runner.NewMetrics(reg)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) != 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}
