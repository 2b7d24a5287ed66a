package client

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Breaker configures the circuit breakers of a Client: one for each kind of
// call that is made with a pool token, so that a failing poll does not keep the
// others from being tried. The defaults are those of PROTOCOL 2.7.
type Breaker struct {
	Failures int           // in a row that open it; 0 means 2, below 0 means never
	Open     time.Duration // how long it stays open; default 10m
}

// ErrBreakerOpen is in the error of a call that was not made because those
// before it have failed. The error's RetryAfter says when the next one will be.
var ErrBreakerOpen = errors.New("not tried, because the calls before it have failed")

// breaker guards one kind of call.
type breaker struct {
	cb       *gobreaker.CircuitBreaker[struct{}]
	open     time.Duration
	openedAt atomic.Int64 // unix nanoseconds
}

func newBreaker(o Breaker) *breaker {
	if o.Failures < 0 {
		return nil
	}
	b := &breaker{open: o.Open}
	b.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     o.Open,
		ReadyToTrip: func(n gobreaker.Counts) bool { return int(n.ConsecutiveFailures) >= o.Failures },
		IsExcluded:  func(err error) bool { return outcomeIn(err, OutcomeCancelled, OutcomeThrottled, OutcomeNotTried) },
		// A refusal is an answer: the service is there.
		IsSuccessful: func(err error) bool { return !Retryable(err) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				b.openedAt.Store(time.Now().UnixNano())
			}
		},
	})
	return b
}

func outcomeIn(err error, outcomes ...string) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, o := range outcomes {
		if e.Outcome == o {
			return true
		}
	}
	return false
}

// through makes one request unless the breaker is open.
func (c *Client) through(b *breaker, cl call, try func() error) error {
	if b == nil {
		return try()
	}
	_, err := b.cb.Execute(func() (struct{}, error) { return struct{}{}, try() })
	if !errors.Is(err, gobreaker.ErrOpenState) && !errors.Is(err, gobreaker.ErrTooManyRequests) {
		return err
	}
	left := max(b.open-time.Since(time.Unix(0, b.openedAt.Load())), minRetryAfter)
	e := c.fail(cl, time.Now(), OutcomeNotTried, 0, fmt.Errorf("%w: next try in %s", ErrBreakerOpen, left.Round(time.Second)))
	e.retryAfter = left
	return e
}
