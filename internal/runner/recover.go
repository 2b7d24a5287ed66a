package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/host"
	"github.com/longshore-run/longshore/internal/ledger"
)

// Recover finds what earlier processes of this agent left: jobs that go on by
// themselves, jobs that ended meanwhile, claims that were never begun. It
// returns one function for each, which brings it to its end as Handle does for a
// new one, with the same meaning of its context; each is to be called once, in a
// goroutine, and counts as a job in hand.
//
// Call it once, before Handle. After an error nothing was changed, and it may be
// called again.
func (r *Runner) Recover(ctx context.Context) ([]func(context.Context), error) {
	left, err := r.o.Backend.Left(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the jobs of before: %w", err)
	}
	entries, err := r.o.Ledger.All()
	if err != nil && entries == nil {
		return nil, fmt.Errorf("find the jobs of before: %w", err)
	}
	if err != nil {
		r.o.Log.Error("a job of before is forgotten; where it still runs it goes on by itself", zap.Error(err))
	}
	found := map[string]backend.Remnant{}
	for _, remnant := range left {
		found[remnant.JobID] = remnant
	}
	var jobs []func(context.Context)
	for _, e := range entries {
		remnant, ok := found[e.Work.JobID]
		delete(found, e.Work.JobID)
		jobs = append(jobs, r.resume(e, remnant, ok))
	}
	for _, remnant := range found {
		jobs = append(jobs, r.stray(remnant))
	}
	if len(jobs) > 0 {
		r.o.Log.Info("taking up what the agent left before", zap.Int("jobs", len(jobs)))
	}
	return jobs, nil
}

// resume returns what brings a remembered job to its end.
func (r *Runner) resume(e ledger.Entry, remnant backend.Remnant, found bool) func(context.Context) {
	r.seen.add(e.Work.Deployment())
	r.hand.add(e.Work.JobID)
	log := r.o.Log.With(zap.String("deployment_id", e.Work.Deployment()), zap.String("job_id", e.Work.JobID))
	j := newRun(&r.o, log, e)
	j.resumed = true
	j.def.Operation, j.def.Timeout = e.Operation, e.Timeout
	return func(ctx context.Context) {
		r.carry(ctx, j, func(ctx context.Context) string { return j.resume(ctx, remnant, found) })
	}
}

// resume carries on a job that another process has begun.
func (j *run) resume(ctx context.Context, remnant backend.Remnant, found bool) string {
	j.open()
	last := context.WithoutCancel(ctx)
	if found {
		var err error
		if j.workload, err = j.adopt(ctx, remnant.JobID); errors.Is(err, backend.ErrGone) {
			found = false
		} else if err != nil {
			return j.leave(err) //nolint:contextcheck // ctx has ended, and there is nothing to wait for
		}
	}
	switch {
	case j.entry.End != nil:
		return j.end(last, verdictOf(*j.entry.End))
	case found && !remnant.Started, !found && j.entry.Started.IsZero():
		return j.end(last, verdict{
			outcome: outcomeNeverStarted, failed: true, step: 0,
			line: "The agent ended between the claim of the job and its start. Nothing was changed; deploy again.",
		})
	case !found:
		return j.end(last, j.lost(judge(ending{err: backend.ErrGone}, nil, j.o.Limits)))
	}
	if j.entry.Started.IsZero() { // killed in the moment between
		j.noteStart()
	}
	j.o.Metrics.adopted.Inc()
	j.log.Info("job taken over", zap.String("workload", j.workload.ID()), zap.Duration("age", time.Since(j.entry.Started)))
	v := j.attend(ctx)
	return j.end(last, j.lost(v))
}

// attend sees a started job through to its end.
func (j *run) attend(ctx context.Context) verdict {
	jobCtx, cancel := context.WithCancelCause(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel(nil)
	helpers.Go(func() { j.watch(jobCtx, cancel) })
	return j.supervise(ctx, jobCtx)
}

// adopt takes the workload over. It goes on trying while the backend does not
// answer: the job may be running.
func (j *run) adopt(ctx context.Context, jobID string) (backend.Workload, error) {
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0),
	)
	for {
		w, err := j.o.Backend.Adopt(ctx, jobID)
		switch {
		case err == nil, errors.Is(err, backend.ErrGone):
			return w, err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		pause := retry.NextBackOff()
		j.log.Warn("cannot take over a job of before; will go on trying", zap.Error(err), zap.Duration("retry_in", pause))
		sleep(ctx, pause)
	}
}

// leave lets a job be for the next process of the agent.
func (j *run) leave(why error) string {
	j.ended, j.unsaid = true, true
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing was written
	_ = j.streams.Close(ctx)
	j.log.Warn("job left to the next agent", zap.NamedError("cause", why))
	return outcomeLeft
}

// lost blames the restart of the host for an end that has no better reason.
func (j *run) lost(v verdict) verdict {
	before, now := j.entry.BootID, host.BootID()
	if before == "" || before == now || v.outcome != outcomeCrashed && v.outcome != outcomeRemoved {
		return v
	}
	v.outcome = outcomeHostLost
	v.line = "The agent's host was restarted while the job ran, and took the job with it." + stackAdvice
	return v
}

// stray returns what watches a job that nobody remembers, and removes it once
// it has ended: its executor speaks for itself.
func (r *Runner) stray(remnant backend.Remnant) func(context.Context) {
	log := r.o.Log.With(zap.String("deployment_id", remnant.DeploymentID), zap.String("job_id", remnant.JobID))
	j := newRun(&r.o, log, ledger.Entry{Work: api.AgentWorkflowDefinition{JobID: remnant.JobID, TypeSpecificID: remnant.DeploymentID}, Claimed: time.Now()})
	r.hand.add(remnant.JobID)
	return func(ctx context.Context) {
		defer r.hand.remove(remnant.JobID)
		w, err := j.adopt(ctx, remnant.JobID)
		if errors.Is(err, backend.ErrGone) {
			return
		}
		if err != nil {
			log.Warn("job left to the next agent", zap.NamedError("cause", err))
			return
		}
		j.workload = w
		if remnant.Started {
			log.Warn("watching a job that this agent does not remember", zap.String("workload", w.ID()))
			if e := j.wait(ctx); ctx.Err() != nil {
				log.Warn("job left to the next agent", zap.Error(e.err))
				return
			}
			if r.o.KeepFailed {
				log.Info("job is kept: whether it failed is not known", zap.String("workload", w.ID()))
				return
			}
		}
		j.remove(context.WithoutCancel(ctx))
		r.o.Metrics.swept.Inc()
	}
}
