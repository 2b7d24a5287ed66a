package runner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/backend"
)

// watch asks for the status of the deployment until ctx ends or the service
// says that the deployment has; then it cancels the job. An end that the
// executor brought about itself shows in the same way, and a moment before the
// executor has left: it gets the time to.
func (j *run) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	failing := false
	for ctx.Err() == nil {
		asked := time.Now()
		status, held, err := j.o.Pool.DeploymentStatus(ctx, j.work.Deployment(), j.o.StatusWait)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				j.log.Warn("cannot ask whether the deployment was cancelled; will go on trying", zap.Error(err))
			}
			failing = true
		case status == api.StatusSucceeded:
			sleep(ctx, j.o.DeliverTimeout)
			cancel(errOverdue)
			return
		case status.Terminal():
			sleep(ctx, settleTime)
			cancel(errCancelled)
			return
		default:
			failing = false
			j.o.Active()
		}
		switch {
		case err == nil && held && time.Since(asked) >= j.o.StatusWait/2:
		case held:
			// Let go early: the service is stopping, and so it is for every job.
			sleep(ctx, spread(j.o.StatusInterval))
		default:
			sleep(ctx, jitter(j.o.StatusInterval))
		}
	}
}

// beat says that the job lives until ctx ends. A service that answers that it
// no longer cares ends the job.
func (j *run) beat(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		sleep(ctx, jitter(j.o.Heartbeat))
		if ctx.Err() != nil {
			return
		}
		err := j.job.Heartbeat(ctx)
		switch {
		case err == nil:
			j.o.Active()
		case ctx.Err() == nil && client.Gone(err):
			cancel(errEnded)
			return
		case ctx.Err() == nil:
			j.log.Warn("heartbeat did not succeed", zap.Error(err))
		}
	}
}

// ending is how a workload ended.
type ending struct {
	exit backend.Exit
	err  error
}

// supervise waits for the end of the workload, brings it about when jobCtx ends
// or the job has outlived every limit, and says what to make of it.
func (j *run) supervise(ctx, jobCtx context.Context) verdict {
	// Waiting goes on when the agent is told to cancel: the job ends first.
	waitCtx, stopWaiting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWaiting()
	ended := make(chan ending, 1)
	go func() { ended <- j.wait(waitCtx) }() // ends with waitCtx, at the latest

	var overdue <-chan time.Time
	if limit := j.limit(); limit > 0 {
		timer := time.NewTimer(limit - time.Since(j.entry.Started))
		defer timer.Stop()
		overdue = timer.C
	}
	var cause error
	select {
	case e := <-ended:
		return j.conclude(e, nil)
	case <-jobCtx.Done():
		cause = context.Cause(jobCtx)
	case <-overdue:
		cause = errOverdue
	}
	j.log.Info("stopping job", zap.NamedError("cause", cause))
	stopCtx, giveUp := context.WithTimeout(waitCtx, j.ladder()+removeTimeout)
	defer giveUp()
	if err := j.workload.Stop(stopCtx, j.ladder()); err != nil {
		j.log.Warn("job could not be stopped", zap.Error(err))
	}
	select {
	case e := <-ended:
		return j.conclude(e, cause)
	case <-time.After(slack): // Stop has returned: the end must show soon
		stopWaiting()
		<-ended
		return judge(ending{err: errors.New("the job was stopped, and how it ended cannot be found out")}, cause, j.o.Limits)
	}
}

// conclude judges the end of the workload, and notes whether its log is whole
// and what the cache did.
func (j *run) conclude(e ending, cause error) verdict {
	if report := believable(e.exit.Report); report != nil {
		j.delivered, j.cached = report.Delivered, report.Cache
		if j.resumed {
			report.Signalled = false // the process before this one may have told it
		}
	}
	return judge(e, cause, j.o.Limits)
}

// wait waits for the end of the workload, across errors of the backend: as long
// as the backend cannot tell, the job may be running, and only the service's
// own word or the operator's ends the waiting.
func (j *run) wait(ctx context.Context) (e ending) {
	defer func() {
		if reason := recover(); reason != nil {
			j.log.Error("a job ran into a bug of the backend", zap.String("panic", fmt.Sprint(reason)), zap.ByteString("stack", debug.Stack()))
			e = ending{err: errors.New("internal error of the agent")}
		}
	}()
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0),
	)
	for {
		exit, err := j.workload.Wait(ctx)
		if err == nil || errors.Is(err, backend.ErrGone) || ctx.Err() != nil {
			return ending{exit, err}
		}
		pause := retry.NextBackOff()
		j.log.Warn("cannot find out whether the job still runs; will go on trying", zap.Error(err), zap.Duration("retry_in", pause))
		sleep(ctx, pause)
	}
}

// jitter returns d, more or less by up to a tenth of it.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // spreads load, guards nothing
}

// spread returns anything between nothing and d.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * rand.Float64()) //nolint:gosec // spreads load, guards nothing
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
