package agent_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
)

const drainMessage = "draining: no new polls; waiting for the one that is held and for the jobs in hand"

// stubborn jobs run until they are cancelled. Each start is told to started.
func stubborn(started chan<- string) fake.Script {
	return fake.Script{Executor: func(_ context.Context, job fake.Job) backend.Exit {
		started <- job.File.JobID
		<-job.Stop
		return backend.Exit{Code: 12, Report: &api.Report{Step: 1, Status: api.StepFailed, Delivered: true, Outcome: api.OutcomeCancelled}}
	}}
}

// draining runs an agent with two jobs that do not end by themselves, drains it,
// calls then, and returns what it logged until its end.
func draining(t *testing.T, limit time.Duration, then func(*agent.Agent, context.CancelCauseFunc)) *observer.ObservedLogs {
	t.Helper()
	s, started := newService(t, "a", "b"), make(chan string, 2)
	c := config(t, s, "lsp-1")
	c.Backend, c.DrainTimeout, c.Concurrency = fake.New(stubborn(started)), limit, 2
	core, logs := observer.New(zapcore.InfoLevel)
	drains := make(chan struct{})
	log := zap.New(core, zap.Hooks(func(entry zapcore.Entry) error {
		if entry.Message == drainMessage {
			close(drains)
		}
		return nil
	}))
	a, err := agent.New(c, agent.Deps{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	drain, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(ctx, drain) }()
	jobs := []string{<-started, <-started}
	if state, _ := a.State(); state != agent.Running {
		t.Errorf("State() = %s, want %s", state, agent.Running)
	}
	for _, job := range a.Jobs() {
		if !slices.Contains(jobs, job.JobID) || job.DeploymentID == "" || job.Claimed.IsZero() {
			t.Errorf("Jobs() has %+v, want one of %q", job, jobs)
		}
	}
	close(drain)
	<-drains
	then(a, cancel)
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	if state, _ := a.State(); state != agent.Cancelling {
		t.Errorf("State() = %s in the end, want %s", state, agent.Cancelling)
	}
	if n := len(a.Jobs()) + a.Busy(); n != 0 {
		t.Errorf("%d jobs in hand in the end", n)
	}
	return logs
}

func TestADrainEndsForCertain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		limit time.Duration
		then  func(*agent.Agent, context.CancelCauseFunc)
		cause string
	}{
		"after its timeout": {
			time.Millisecond, func(*agent.Agent, context.CancelCauseFunc) {}, "the agent could wait no longer for its jobs",
		},
		"at an earlier moment that something names": {
			time.Hour, func(a *agent.Agent, _ context.CancelCauseFunc) {
				a.CancelBy(time.Now())
				a.CancelBy(time.Now().Add(time.Hour)) // later: ignored
			}, "the agent could wait no longer for its jobs",
		},
		"by a second signal": {
			0, func(_ *agent.Agent, cancel context.CancelCauseFunc) { cancel(errors.New("a second signal")) }, "a second signal",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs := draining(t, tc.limit, tc.then)
			stopping := logs.FilterMessage("stopping: jobs in hand are cancelled").All()
			if len(stopping) != 1 || stopping[0].ContextMap()["cause"] != tc.cause {
				t.Errorf("the log says %v, want once that the jobs are cancelled because %s", stopping, tc.cause)
			}
		})
	}
}

func TestTheLogSaysWhatADrainWaitsFor(t *testing.T) {
	t.Parallel()
	logs := draining(t, time.Hour, func(a *agent.Agent, cancel context.CancelCauseFunc) {
		if state, limit := a.State(); state != agent.Draining || limit.IsZero() {
			t.Errorf("State() = %s until %v, want %s and a time", state, limit, agent.Draining)
		}
		a.Abandon()
		cancel(errors.New("a second signal"))
	})
	for _, message := range []string{
		drainMessage,
		"leaving at once: jobs in hand are left running for the next agent",
	} {
		said := logs.FilterMessage(message).All()
		if len(said) != 1 || said[0].ContextMap()["jobs_in_hand"] != int64(2) {
			t.Errorf("the log says %v, want %q once, with 2 jobs", said, message)
		}
	}
	if said := logs.FilterMessage(drainMessage).All(); len(said) > 0 {
		if until, ok := said[0].ContextMap()["until"].(time.Time); !ok || until.IsZero() {
			t.Errorf("it drains until %v, want a time", said[0].ContextMap()["until"])
		}
	}
}
