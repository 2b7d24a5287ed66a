package poll

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// Loop claims work and hands it to slots.
//
// One goroutine polls for all slots. It takes a free slot first, then makes
// sure that a job could be started, and only then asks; work that comes goes
// to the slot, and the next poll follows at once, so that a burst is claimed as
// fast as the service answers while an idle agent holds a single request open
// whatever its number of slots.
//
// What a drain does to a poll that is being held: nothing. The service claims
// inside the request, so a request that is cut may be a claim that is lost. The
// loop starts no new poll, waits for the answer of the one that is under way (at
// most Options.Wait, plus whatever the Source allows a request to take), and runs
// the work if it brings some. Canceling the context cuts it at once, and with it
// goes, in the worst case, the one claim that was crossing the wire at that
// moment. Longshore's server takes back a claim of which it hears nothing, and
// hands the deployment out anew; elsewhere it fails as silent. It is never run
// twice.
type Loop struct {
	o       Options
	pace    *pace
	blocked *blocked
	slots   *slots
	work    sync.WaitGroup
	hands   hands
	claims  int // made so far
}

// New returns a loop that is not running yet.
func New(o Options) *Loop {
	o = o.withDefaults()
	o.Metrics.slots.Set(float64(o.Slots))
	for _, c := range o.Checks {
		o.Metrics.blocked.WithLabelValues(c.Reason)
	}
	l := &Loop{o: o, slots: newSlots(o.Slots)}
	l.pace, l.blocked = newPace(&l.o), &blocked{o: &l.o, since: map[string]time.Time{}}
	return l
}

// Run claims and hands over until drain is closed or ctx ends, and returns when
// every handler has returned. Closing drain lets work in hand finish; canceling
// ctx cancels it, too. Both are ends as ordered, and return nil, as do the ends
// after Options.MaxJobs and Options.IdleTimeout. The one error is a refused token
// (ErrRefused). Call Run once.
//
// inHand is work that was begun before. It runs at once, each in a slot, and
// when that is more than there are slots, nothing is claimed until it is less.
func (l *Loop) Run(ctx context.Context, drain <-chan struct{}, inHand ...func(context.Context)) error {
	// claimCtx ends the waiting of the loop, never a request and never work.
	claimCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stop(nil)
	watcher.Go(func() {
		select {
		case <-drain:
			stop(errDraining)
			l.blocked.set(ReasonDraining, errDraining)
		case <-claimCtx.Done():
		}
	})
	defer l.work.Wait()

	for _, job := range inHand {
		l.slots.take()
		l.occupy(func() { job(ctx) }, zap.Skip())
	}
	l.hands.add(0) // without work it is idle from here on
	for !l.idled() {
		wait, err := l.claim(ctx, claimCtx)
		switch {
		case errors.Is(err, errEnough):
			l.blocked.set(ReasonDraining, err)
			l.o.Log.Info("enough: no new polls; waiting for the jobs in hand", zap.Int("claimed", l.claims))
			return nil // once the work is done
		case err != nil:
			return err
		case claimCtx.Err() != nil:
			return nil
		case wait > 0:
			sleep(claimCtx, l.untilIdle(wait))
		}
	}
	l.o.Log.Info("nothing to do for long enough: no new polls", zap.Duration("idle_timeout", l.o.IdleTimeout))
	return nil
}

// claim goes round once: slot, check, poll, hand over. It returns how long to
// wait before the next round. Its error ends the loop.
func (l *Loop) claim(ctx, claimCtx context.Context) (wait time.Duration, err error) {
	if !l.takeSlot(claimCtx) {
		return 0, nil
	}
	handed := false
	defer func() {
		if !handed {
			l.slots.free()
		}
	}()
	if !l.check(claimCtx) {
		return jitter(l.o.CheckInterval, 0.1), nil
	}
	if claimCtx.Err() != nil { // both may be ready above: a drain wins over a slot
		return 0, nil
	}

	// ctx, not claimCtx: a drain must not cut a request that may be a claim.
	asked, wait := time.Now(), l.untilIdle(l.o.Wait)
	answer, err := l.o.Source.Claim(ctx, wait)
	if answer.Work != nil { // even next to an error: what is claimed must run
		l.pace.afterWork()
		l.o.Metrics.answered("work")
		handed = true
		l.hand(ctx, *answer.Work)
		if l.claims++; l.claims == l.o.MaxJobs {
			return 0, errEnough
		}
		return 0, nil
	}
	if err != nil && ctx.Err() == nil {
		return l.pace.afterError(answer, err)
	}
	if err != nil {
		return 0, nil //nolint:nilerr // the request was cut because the loop is to end
	}
	l.o.Metrics.answered("none")
	return l.pace.afterNone(answer, wait, time.Since(asked)), nil
}

// hand runs work in the slot that the caller holds.
func (l *Loop) hand(ctx context.Context, work api.AgentWorkflowDefinition) {
	l.occupy(func() { l.o.Handler.Handle(ctx, work) }, zap.String("job_id", work.JobID))
}

// occupy runs a job in a slot that was taken for it. which names the job.
func (l *Loop) occupy(job func(), which zap.Field) {
	l.o.Metrics.busy.Inc()
	l.hands.add(1)
	l.work.Go(func() {
		defer func() {
			if reason := recover(); reason != nil {
				// The handler has a net of its own, which tells the service. This
				// one keeps the agent and its other jobs alive.
				l.o.Metrics.panics.Inc()
				l.o.Log.Error("a job crashed its slot", which,
					zap.String("panic", fmt.Sprint(reason)), zap.ByteString("stack", debug.Stack()))
			}
			l.hands.add(-1)
			l.o.Metrics.busy.Dec()
			l.slots.free()
		}()
		job()
	})
}
