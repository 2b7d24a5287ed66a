package runner

import (
	"context"
	"errors"
	"os"
	"sync"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
)

// end says what is left to say, removes what is left, and returns the outcome.
// ctx must be free of the cancellation that ended the job; end bounds its time.
// A second call does nothing.
func (j *run) end(ctx context.Context, v verdict) string {
	if j.ended {
		return v.outcome
	}
	j.ended = true
	var cleaning sync.WaitGroup
	keep := v.failed && j.o.KeepFailed
	if j.workload != nil && !keep {
		cleaning.Go(func() { j.remove(ctx) })
	}
	defer cleaning.Wait()
	if j.streams == nil {
		return v.outcome
	}

	sayCtx, cancel := context.WithTimeoutCause(ctx, j.o.DeliverTimeout, errors.New("the service could not be reached in time"))
	defer cancel()
	var beating sync.WaitGroup
	defer beating.Wait()
	beatCtx, stopBeating := context.WithCancelCause(sayCtx)
	defer stopBeating(nil)
	beating.Go(func() { j.beat(beatCtx, stopBeating) })

	if j.workload != nil && keep {
		j.log.Info("failed job is kept", zap.String("workload", j.workload.ID()))
	}
	if v.step != noStep {
		j.lastWords(sayCtx, v)
	}
	if err := j.streams.Close(sayCtx); err != nil && !client.Gone(err) {
		j.log.Warn("the job's log is not complete", zap.Error(err))
	}
	if dir := j.spool(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	return v.outcome
}

// remove frees what the job held.
func (j *run) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	if err := j.workload.Remove(ctx); err != nil {
		j.o.Metrics.unremoved.Inc()
		j.log.Warn("something of the job was left behind", zap.String("workload", j.workload.ID()), zap.Error(err))
	}
}

// lastWords puts the line into the log of the step that v names, and then ends
// that step: a service may close the log with the status.
func (j *run) lastWords(ctx context.Context, v verdict) {
	if v.step == unknownStep {
		j.failFirst(ctx, v.line)
		return
	}
	j.say(ctx, v.step, v.line)
	switch {
	case v.told:
	case !v.failed:
		j.settle(ctx, v.step)
	default:
		err := j.job.Step(ctx, v.step, api.StepFailed)
		if conflict(err) && v.settled {
			j.settle(ctx, v.step-1)
			err = j.job.Step(ctx, v.step, api.StepFailed)
		}
		j.unreported(v.step, err)
	}
}

// failFirst fails the first step that has not succeeded, which only the service
// knows, and puts line into its log.
func (j *run) failFirst(ctx context.Context, line string) {
	for step := range max(len(j.def.Steps), 1) {
		err := j.job.Step(ctx, step, api.StepFailed)
		if conflict(err) {
			continue
		}
		j.unreported(step, err)
		j.say(ctx, step, line)
		return
	}
}

func (j *run) unreported(step int, err error) {
	if err != nil && !client.Gone(err) && !conflict(err) {
		j.log.Warn("the end of the job could not be reported", zap.Int("step", step), zap.Error(err))
	}
}

func (j *run) say(ctx context.Context, step int, text string) {
	w := j.streams.Step(0)
	if step > 0 { // the executor may have written there before
		w = j.streams.Continue(step)
	}
	w.Line("%s", text)
	if err := j.streams.Flush(ctx); err != nil && !client.Gone(err) {
		j.log.Warn("the last words of the job could not be delivered", zap.Error(err))
	}
}

// settle tells the service that the steps up to last have succeeded, those of
// which it does not know it yet. A repeat has no effect, and a move that may
// not be made is refused.
func (j *run) settle(ctx context.Context, last int) {
	for i := 0; i <= last; i++ {
		if err := j.job.Step(ctx, i, api.StepSucceeded); conflict(err) {
			_ = j.job.Step(ctx, i, api.StepRunning)
			err = j.job.Step(ctx, i, api.StepSucceeded)
			if err != nil {
				return
			}
		} else if err != nil {
			return
		}
	}
}
