// Package poll is the claim loop of an agent: it asks the service for work when
// a slot is free and the place where jobs live is healthy, and hands each piece
// of work to a slot of its own. It knows no backend, no HTTP and no job; the
// main type is Loop.
package poll

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// ErrRefused is wrapped by a Source when the service refuses the pool token
// (401, 403). The loop claims no more, lets the jobs in hand finish, since they
// have tokens of their own, and then returns the error.
var ErrRefused = errors.New("the service refuses the pool token")

// Answer is what the service said to one poll.
type Answer struct {
	// Work is the claimed piece of work, nil when there is none. A claim is
	// exclusive and its answer is never repeated: whoever receives it must run
	// it.
	Work *api.AgentWorkflowDefinition
	// RetryAfter is how long the service asks to wait before the next poll, 0
	// when it did not say. It counts next to an error, too.
	RetryAfter time.Duration
	// WaitApplied reports that the service held the poll open for the wait that
	// was asked for (RFC 7240, Preference-Applied), so that the next poll may
	// follow at once.
	WaitApplied bool
}

// Source asks the service for work. Claim makes exactly one request and never
// repeats it, because its answer is a claim. Canceling ctx abandons the request;
// a claim that the service made meanwhile is then lost. Longshore's server takes
// it back after a while; elsewhere the deployment fails as silent.
type Source interface {
	Claim(ctx context.Context, wait time.Duration) (Answer, error)
}

// Handler runs one claimed piece of work to its end. The loop calls it in a
// goroutine of its own, at most Options.Slots at a time. Its context ends only
// when the work itself is to be cancelled, never because of a drain.
type Handler interface {
	Handle(ctx context.Context, work api.AgentWorkflowDefinition)
}

// Options configure a Loop. Source, Handler and Slots are needed; the zero
// value of the others is a default.
type Options struct {
	Source  Source
	Handler Handler
	Slots   int
	// Checks are made, all of them, before every poll. The loop polls only while
	// they hold.
	Checks []Check
	// CheckInterval is the time between two rounds of checks that do not hold.
	CheckInterval time.Duration // default 10s
	// Blocked, when set, is told each reason for not polling, a Check's or one of
	// the Reason constants, as long as it is one, and once with nil when it no
	// longer is. It may be called by several goroutines, one after the other.
	Blocked func(reason string, why error)
	// Wait is how long the service is asked to hold a poll open. Negative asks
	// for no waiting at all.
	Wait time.Duration // default 60s
	// Interval is the time between two polls of a service that does not hold
	// them, jittered by a tenth either way.
	Interval time.Duration // default 1m
	// IgnoreRetryAfter makes Interval win over what the service asks for.
	IgnoreRetryAfter bool
	// ErrorWait and ErrorMaxWait bound the waiting after errors. Until the service
	// has answered once, it doubles from the one to the other and is jittered by
	// half either way; from then on it is anything from nothing to Interval, after
	// several errors to ErrorMaxWait.
	ErrorWait    time.Duration // default 1s
	ErrorMaxWait time.Duration // default 2m
	// MaxJobs ends the loop after so many claims. 0: never.
	MaxJobs int
	// IdleTimeout ends the loop when nothing was in hand for so long. 0: never.
	// The poll that is held at that moment is not cut, it is asked to end then.
	IdleTimeout time.Duration

	Log     *zap.Logger
	Metrics *Metrics
}

// Bounds of an obeyed Retry-After: a service that asks for nothing or for a
// year has a mistake in it.
const (
	minRetryAfter = 200 * time.Millisecond
	maxRetryAfter = 15 * time.Minute
)

func (o Options) withDefaults() Options {
	o.Slots = max(o.Slots, 1)
	setDefault(&o.CheckInterval, 10*time.Second)
	setDefault(&o.Wait, time.Minute)
	setDefault(&o.Interval, time.Minute)
	setDefault(&o.ErrorWait, time.Second)
	setDefault(&o.ErrorMaxWait, 2*time.Minute)
	if o.Wait < 0 {
		o.Wait = 0
	}
	if o.Blocked == nil {
		o.Blocked = func(string, error) {}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	return o
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}
