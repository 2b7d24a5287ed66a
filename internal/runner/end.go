package runner

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

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
	defer func() {
		if err := j.settleEntry(); err != nil {
			j.log.Warn("the ledger is not up to date: the next agent may look for this job", zap.Error(err))
		}
	}()
	if j.job != nil {
		// Before anything of it goes: a successor must not find a job that is
		// not there and believe that somebody removed it.
		j.entry.End = v.end()
		if err := j.o.Ledger.Put(j.entry); err != nil {
			j.log.Warn("the end of the job is not noted", zap.Error(err))
		}
	}
	j.o.Metrics.cache.count(j.cached) // once: whoever goes on from the note has not seen the report
	var cleaning sync.WaitGroup
	keep := v.failed && j.o.KeepFailed
	unsafe := j.salvage(ctx)
	if unsafe != nil {
		// What the job ran in goes once its log is safe.
		keep = true
		j.log.Warn("the job is not removed yet: its log is still in it", zap.Error(unsafe))
	}
	j.takeKept(ctx)
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

	if j.workload != nil && keep && unsafe == nil {
		j.log.Info("failed job is kept", zap.String("workload", j.workload.ID()))
	}
	j.push(sayCtx)
	if unsafe != nil {
		defer func() { j.postpone(unsafe) }()
	}
	if v.step != noStep {
		if err := j.lastWords(sayCtx, v); err != nil {
			j.unsaid = true
			j.log.Warn("the end of the job is not reported; it will be tried again", zap.Int("step", v.step), zap.Error(err))
		}
	}
	if err := j.streams.Close(sayCtx); err != nil && !client.Gone(err) {
		j.log.Warn("the job's log is not complete yet", zap.Error(err))
		j.keepOwn()
	}
	if dir := j.spool(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	return v.outcome
}

// postpone leaves the job in the ledger, so that its log is looked for again.
func (j *run) postpone(unsafe error) {
	if !j.unsaid { // only the log is open
		j.entry.End = verdict{outcome: j.entry.End.Outcome, failed: j.entry.End.Failed, step: noStep}.end()
		if err := j.o.Ledger.Put(j.entry); err != nil {
			j.log.Warn("the end of the job is not noted", zap.Error(err))
		}
	}
	j.unsaid = true
	j.log.Debug("the job's log is looked for again later", zap.NamedError("cause", unsafe))
}

// settleEntry forgets the job, unless there is something left to say.
func (j *run) settleEntry() error {
	if j.unsaid {
		return nil
	}
	return j.o.Ledger.Drop(j.work.JobID)
}

// remove frees what the job held. What cannot be removed within a while, as when
// the engine is away for longer, is left to Tidy.
func (j *run) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	began := time.Now()
	err := j.workload.Remove(ctx)
	for err != nil && ctx.Err() == nil && time.Since(began) < removeRetries {
		sleep(ctx, removePause)
		err = j.workload.Remove(ctx)
	}
	if err != nil {
		j.o.Metrics.unremoved.Inc()
		j.log.Warn("something of the job was left behind", zap.String("workload", j.workload.ID()), zap.Error(err))
	}
}

// lastWords puts the line into the log of the step that v names, and then ends
// that step: a service may close the log with the status. Its error means that
// the service could not be told; that it does not want to know is none.
func (j *run) lastWords(ctx context.Context, v verdict) error {
	if j.resumed && len(j.def.Steps) == 0 {
		switch err := j.recall(ctx); {
		case client.Gone(err):
			return nil
		case err != nil:
			return err
		}
	}
	if v.step == unknownStep {
		return j.failFirst(ctx, v.line)
	}
	v.step = min(v.step, max(len(j.def.Steps), 1)-1)
	if err := j.say(ctx, v.step, v.line); err != nil {
		return err
	}
	switch {
	case v.told:
		return nil
	case !v.failed:
		return j.settle(ctx, v.step)
	}
	err := j.job.Step(ctx, v.step, api.StepFailed)
	if conflict(err) && v.settled {
		_ = j.settle(ctx, v.step-1) // where that is refused, so is what follows
		err = j.job.Step(ctx, v.step, api.StepFailed)
	}
	return unsaid(err)
}

// recall asks for the definition again: it says how many steps there are, and
// what is secret.
func (j *run) recall(ctx context.Context) error {
	def, err := j.job.Definition(ctx)
	if err != nil {
		return err
	}
	j.def = def
	j.streams.AddSecret(j.secrets()...)
	return nil
}

// failFirst fails the first step that has not ended, which only the service
// knows. The line goes into its log before: who reads that the deployment has
// ended may take the log for complete.
func (j *run) failFirst(ctx context.Context, line string) error {
	for step := range max(len(j.def.Steps), 1) {
		err := j.job.Step(ctx, step, api.StepRunning)
		if conflict(err) {
			continue
		}
		if err != nil {
			return unsaid(err)
		}
		if err := j.say(ctx, step, line); err != nil {
			return err
		}
		return unsaid(j.job.Step(ctx, step, api.StepFailed))
	}
	return nil
}

// unsaid returns err unless the service has had its say: it does not take what
// may not be said.
func unsaid(err error) error {
	if client.Gone(err) || conflict(err) {
		return nil
	}
	return err
}

func (j *run) say(ctx context.Context, step int, text string) error {
	if text == "" { // said by an earlier try
		return nil
	}
	w := j.streams.Step(0)
	if step > 0 || j.resumed { // another may have written there before
		w = j.streams.Continue(step)
	}
	w.Line("%s", text)
	j.said = true
	return unsaid(j.streams.Flush(ctx))
}

// settle tells the service that the steps up to last have succeeded, those of
// which it does not know it yet. A repeat has no effect, and a move that may
// not be made is refused.
func (j *run) settle(ctx context.Context, last int) error {
	for i := 0; i <= last; i++ {
		err := j.job.Step(ctx, i, api.StepSucceeded)
		if conflict(err) {
			_ = j.job.Step(ctx, i, api.StepRunning)
			err = j.job.Step(ctx, i, api.StepSucceeded)
		}
		if err != nil {
			return unsaid(err)
		}
	}
	return nil
}
