package poll

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
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
// inside the request, so a request that is cut may be a claim that is lost, and
// deployments are never handed out twice. The loop starts no new poll, waits
// for the answer of the one that is under way (at most Options.Wait, plus
// whatever the Source allows a request to take), and runs the work if it brings
// some. Canceling the context cuts it at once, and with it goes, in the worst
// case, the one claim that was crossing the wire at that moment: its deployment
// fails as silent, it is never run twice.
type Loop struct {
	o       Options
	backoff *backoff.ExponentialBackOff
	slots   *slots
	work    sync.WaitGroup
	hands   hands
}

// New returns a loop that is not running yet.
func New(o Options) *Loop {
	o = o.withDefaults()
	o.Metrics.slots.Set(float64(o.Slots))
	return &Loop{
		o: o,
		backoff: backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(o.ErrorWait),
			backoff.WithMaxInterval(o.ErrorMaxWait),
			backoff.WithMultiplier(2),
			backoff.WithMaxElapsedTime(0),
		),
		slots: newSlots(o.Slots),
	}
}

// errDraining is the cause by which a drain ends the loop's waiting.
var errDraining = errors.New("draining")

// Run claims and hands over until drain is closed or ctx ends, and returns when
// every handler has returned. Closing drain lets work in hand finish; canceling
// ctx cancels it, too. Both are ends as ordered, and return nil. The one error
// is a refused token (ErrRefused). Call Run once.
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
		case <-claimCtx.Done():
		}
	})
	defer l.work.Wait()

	for _, job := range inHand {
		l.slots.take()
		l.occupy(func() { job(ctx) }, zap.Skip())
	}
	for {
		wait, err := l.claim(ctx, claimCtx)
		switch {
		case errors.Is(err, errDone):
			return nil // once the work is done
		case err != nil:
			return err
		case claimCtx.Err() != nil:
			return nil
		case wait > 0:
			sleep(claimCtx, wait)
		}
	}
}

// claim goes round once: slot, check, poll, hand over. It returns how long to
// wait before the next round. Its error ends the loop.
func (l *Loop) claim(ctx, claimCtx context.Context) (wait time.Duration, err error) {
	if !l.slots.await(claimCtx) {
		return 0, nil
	}
	handed := false
	defer func() {
		if !handed {
			l.slots.free()
		}
	}()
	if err := l.o.Check(claimCtx); err != nil {
		if claimCtx.Err() == nil {
			l.o.Log.Warn("not polling: jobs cannot be started here", zap.Error(err))
			l.o.Metrics.polls.WithLabelValues("unhealthy").Inc()
		}
		return jitter(l.o.CheckInterval, 0.1), nil
	}
	if claimCtx.Err() != nil { // both may be ready above: a drain wins over a slot
		return 0, nil
	}

	// ctx, not claimCtx: a drain must not cut a request that may be a claim.
	asked := time.Now()
	answer, err := l.o.Source.Claim(ctx, l.o.Wait)
	if answer.Work != nil { // even next to an error: what is claimed must run
		l.backoff.Reset()
		l.o.Metrics.answered("work")
		handed = true
		l.hand(ctx, *answer.Work)
		if l.o.Once {
			return 0, errDone
		}
		return 0, nil
	}
	if err != nil && ctx.Err() == nil {
		return l.afterError(answer, err)
	}
	if err != nil {
		return 0, nil //nolint:nilerr // the request was cut because the loop is to end
	}
	l.backoff.Reset()
	l.o.Metrics.answered("none")
	return l.pause(answer, time.Since(asked)), nil
}

// errDone ends a loop that was to run one piece of work.
var errDone = errors.New("the one piece of work that was asked for is claimed")

// pause returns how long to wait after an answer without work.
func (l *Loop) pause(answer Answer, took time.Duration) time.Duration {
	switch {
	case answer.RetryAfter > 0 && !l.o.IgnoreRetryAfter:
		return jitterUp(min(max(answer.RetryAfter, minRetryAfter), maxRetryAfter))
	case answer.WaitApplied && took >= l.o.Wait/2:
		return 0
	case answer.WaitApplied:
		// Held, but let go early: the service is stopping, or a proxy cuts long
		// requests. Come back soon, and not all agents in the same moment.
		return jitter(time.Second, 0.5)
	}
	return jitter(l.o.Interval, 0.1)
}

// afterError decides what an error means for the loop.
func (l *Loop) afterError(answer Answer, err error) (time.Duration, error) {
	if errors.Is(err, ErrRefused) {
		l.o.Metrics.polls.WithLabelValues("refused").Inc()
		return 0, err
	}
	wait := l.backoff.NextBackOff()
	if answer.RetryAfter > 0 && !l.o.IgnoreRetryAfter {
		wait = jitterUp(min(max(answer.RetryAfter, minRetryAfter), maxRetryAfter))
	}
	l.o.Metrics.polls.WithLabelValues("error").Inc()
	l.o.Log.Warn("poll did not succeed", zap.Error(err), zap.Duration("retry_in", wait))
	return wait, nil
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

// jitter returns d, more or less by up to the given share of it.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*rand.Float64())) //nolint:gosec // spreads load, guards nothing
}

// jitterUp returns d or up to a tenth more: never earlier than was asked for.
func jitterUp(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + 0.1*rand.Float64())) //nolint:gosec // spreads load, guards nothing
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
