package poll

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Reasons for not polling that a Loop finds out by itself. Those of Checks have
// names of their own.
const (
	ReasonSlots    = "slots"    // all are in use
	ReasonDraining = "draining" // nothing more is to be claimed
)

// Check is a condition that must hold before every poll: there is no way to give
// a claim back.
type Check struct {
	// Reason names it. It is a label of a metric: few values, never ids.
	Reason string
	// Check returns nil when the condition holds, else what is wrong and what to
	// do about it. It returns promptly.
	Check func(context.Context) error
}

// check runs all checks, so that every reason shows, and reports whether all
// hold.
func (l *Loop) check(ctx context.Context) bool {
	well := true
	for _, c := range l.o.Checks {
		err := c.Check(ctx)
		if ctx.Err() != nil {
			return false // says nothing about the condition
		}
		l.blocked.set(c.Reason, err)
		well = well && err == nil
	}
	if !well {
		l.o.Metrics.polls.WithLabelValues("unhealthy").Inc()
	}
	return well
}

var (
	errAllBusy  = errors.New("all are in use")
	errDraining = errors.New("draining: claims no more deployments")
	errEnough   = errors.New("the last deployment that this agent is to run is claimed")
)

// takeSlot takes a slot once there is one. It returns false when ctx ends first.
func (l *Loop) takeSlot(ctx context.Context) bool {
	if l.slots.full() {
		l.blocked.set(ReasonSlots, errAllBusy)
		defer l.blocked.set(ReasonSlots, nil)
	}
	return l.slots.await(ctx)
}

// blocked keeps the reasons for which a loop does not poll.
type blocked struct {
	o     *Options
	mu    sync.Mutex
	since map[string]time.Time // by reason, while it is one
}

// set notes that reason keeps the loop from polling because of why, or, when why
// is nil, that it no longer does. The log hears of it when that changes.
func (b *blocked) set(reason string, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	since, was := b.since[reason]
	if !was && why == nil {
		return
	}
	b.o.Blocked(reason, why)
	quiet := reason == ReasonSlots || reason == ReasonDraining // part of every day
	switch {
	case why == nil:
		delete(b.since, reason)
		b.o.Metrics.blocked.WithLabelValues(reason).Set(0)
		if !quiet {
			b.o.Log.Info("a reason for not polling is gone", zap.String("reason", reason), zap.Duration("after", time.Since(since)))
		}
	case !was:
		b.since[reason] = time.Now()
		b.o.Metrics.blocked.WithLabelValues(reason).Set(1)
		if !quiet {
			b.o.Log.Warn("not polling", zap.String("reason", reason), zap.Error(why))
		}
	}
}
