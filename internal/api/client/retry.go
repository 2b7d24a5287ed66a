package client

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"
)

// retry calls try until it succeeds, fails for good, or was tried often enough.
func (c *Client) retry(ctx context.Context, try func() error) error {
	waits := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(c.o.RetryWait), backoff.WithMaxInterval(c.o.RetryMaxWait), backoff.WithMaxElapsedTime(0))
	for n := 0; ; n++ {
		err := try()
		var e *Error
		if err == nil || !Retryable(err) || !errors.As(err, &e) || e.Outcome == OutcomeNotTried {
			return err
		}
		if c.o.Retries >= 0 && n >= c.o.Retries {
			return err
		}
		wait := waits.NextBackOff()
		if e.retryAfter > 0 { // asked for: obeyed, and spread so that not all come back at once
			wait = e.retryAfter + min(wait, e.retryAfter)/10
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return err // the wait would outlive the caller: say what is wrong instead
		}
		c.o.Log.Debug("call to the service will be repeated", zap.Error(err), zap.Duration("wait", wait))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
