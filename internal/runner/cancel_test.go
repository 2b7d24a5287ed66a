package runner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
	"github.com/longshore-run/longshore/internal/runner"
)

func TestCancel(t *testing.T) {
	t.Parallel()
	t.Run("while the job runs asks the executor once and waits for it", func(t *testing.T) {
		t.Parallel()
		for _, ignore := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := newService(definition())
				s.ignore = ignore
				g := newRig(s, fake.Script{Executor: obedient(s, 5*time.Minute)}, runner.Options{})
				time.AfterFunc(time.Hour, s.cancel)
				began := time.Now()
				g.r.Handle(t.Context(), work("d"))
				took := time.Since(began) - time.Hour - 5*time.Minute
				if most := 2 * time.Second; took < 0 || (!ignore && took > most) || took > 35*time.Second {
					t.Errorf("heard of the cancel after %v (a service that holds: %v)", took, !ignore)
				}
				if g.outcomes(t) != "cancelled" || !strings.HasSuffix(g.history(), "2 failed") {
					t.Errorf("outcome %q, steps %q", g.outcomes(t), g.history())
				}
			})
		}
	})
	t.Run("of an executor that does not listen ends with the whole ladder", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			g := newRig(s, fake.Script{Executor: obedient(s, 100*time.Hour)}, runner.Options{})
			time.AfterFunc(time.Minute, s.cancel)
			began := time.Now()
			g.r.Handle(t.Context(), work("d"))
			if took := time.Since(began); took < 20*time.Minute || took > 25*time.Minute {
				t.Errorf("killed after %v, want the grace of 10m and the delivery of 10m first", took)
			}
			if got := g.log(1); g.outcomes(t) != "cancelled" || !strings.Contains(g.log(2)+got, "pulumi cancel") {
				t.Errorf("outcome %q, log %q, want advice about the stack", g.outcomes(t), got)
			}
		})
	})
	t.Run("while the image is pulled ends the pull", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			g := newRig(s, fake.Script{Prepare: func(ctx context.Context, _ backend.Spec, setup io.Writer) error {
				fmt.Fprintln(setup, "pulling acme/pulumi:1")
				<-ctx.Done()
				return context.Cause(ctx)
			}}, runner.Options{})
			time.AfterFunc(5*time.Minute, s.cancel)
			began := time.Now()
			g.r.Handle(t.Context(), work("d"))
			if took := time.Since(began) - 5*time.Minute; took > 2*time.Second {
				t.Errorf("ended %v after the cancel, want 2s at most", took)
			}
			if want := "pulling acme/pulumi:1\nCancelled before any step had started. Nothing was changed.\n"; g.log(0) != want || g.history() != "0 running, 0 failed" {
				t.Errorf("log %q, steps %q", g.log(0), g.history())
			}
			if beats, _ := g.counts(); beats < 9 || beats > 11 {
				t.Errorf("%d heartbeats in five minutes of preparing, want 10 or so", beats)
			}
		})
	})
	t.Run("of a job that failed by itself is no cancel", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			asked := false
			g := newRig(s, fake.Script{Executor: func(ctx context.Context, job fake.Job) backend.Exit {
				s.succeed(0)
				_ = s.Step(ctx, 1, api.StepFailed) // the status call answers "failed" now
				select {
				case <-job.Stop:
					asked = true
				case <-time.After(300 * time.Millisecond):
				}
				return backend.Exit{Code: 10, Report: &api.Report{Step: 1, Delivered: true, Outcome: api.OutcomeStepFailed}}
			}}, runner.Options{})
			g.r.Handle(t.Context(), work("d"))
			if asked || g.outcomes(t) != "step-failed" {
				t.Errorf("asked to cancel: %v, outcome %q", asked, g.outcomes(t))
			}
		})
	})
}

func TestTheAgentsSecondSignalEndsTheJobByTheLadder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: obedient(s, 3*time.Minute)}, runner.Options{})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(errors.New("stopped by a second signal")) })
		began := time.Now()
		g.r.Handle(ctx, work("d"))
		if took := time.Since(began); took != 4*time.Minute {
			t.Errorf("ended after %v, want 4m: the executor had its time", took)
		}
		if g.outcomes(t) != "cancelled" || !strings.HasSuffix(g.history(), "2 failed") || len(g.place.Jobs()) != 0 {
			t.Errorf("outcome %q, steps %q, left %q", g.outcomes(t), g.history(), g.place.Jobs())
		}
	})
}

func TestTimeLimitBeyondTheExecutorsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		def := definition()
		def.Timeout, def.Operation = api.Duration(time.Hour), api.OperationPreview
		s := newService(def)
		g := newRig(s, fake.Script{Executor: obedient(s, 100*time.Hour)}, runner.Options{})
		began := time.Now()
		g.r.Handle(t.Context(), work("d"))
		if took := time.Since(began); took < time.Hour+10*time.Minute || took > time.Hour+25*time.Minute {
			t.Errorf("ended after %v, want the limit and two ladders of 11m", took)
		}
		if g.outcomes(t) != "timed-out" {
			t.Errorf("outcome %q", g.outcomes(t))
		}
	})
}
