package poll

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"
)

// pace is how a loop waits between polls. It is used by the goroutine of the
// loop alone.
//
// The polls of a thousand agents end in one moment when the service that holds
// them goes away. Once it has answered a loop, what follows an error is therefore
// drawn from the whole interval, up to ErrorMaxWait when errors follow each
// other: whenever the service returns, it finds the agents spread out. Before the
// first answer nothing has tied the agents together, and the service may just be
// starting: then the waits begin short.
type pace struct {
	o        *Options
	backoff  *backoff.ExponentialBackOff
	answered bool // the service has answered this loop
	tied     bool // the last poll was held to its end or brought work: others may end with the next
}

func newPace(o *Options) *pace {
	return &pace{o: o, backoff: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(o.ErrorWait),
		backoff.WithMaxInterval(o.ErrorMaxWait),
		backoff.WithMultiplier(2),
		backoff.WithMaxElapsedTime(0),
	)}
}

// answer notes that the service has answered.
func (p *pace) answer() {
	if !p.answered {
		p.answered = true
		p.backoff = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(min(p.o.Interval, p.o.ErrorMaxWait)/2),
			backoff.WithRandomizationFactor(1), // from nothing to twice the interval
			backoff.WithMaxInterval(p.o.ErrorMaxWait/2),
			backoff.WithMultiplier(2),
			backoff.WithMaxElapsedTime(0),
		)
	}
	p.backoff.Reset()
}

// afterWork notes an answer with work; the next poll follows at once.
func (p *pace) afterWork() {
	p.answer()
	p.tied = true
}

// afterNone returns how long to wait after an answer without work, to a poll
// that was to be held for asked and took took.
func (p *pace) afterNone(answer Answer, asked, took time.Duration) time.Duration {
	p.answer()
	tied := p.tied
	p.tied = answer.WaitApplied && took >= asked/2
	switch {
	case answer.RetryAfter > 0 && !p.o.IgnoreRetryAfter:
		return jitterUp(min(max(answer.RetryAfter, minRetryAfter), maxRetryAfter))
	case p.tied:
		return 0
	case answer.WaitApplied && tied:
		return spread(p.o.Interval) // let go early: the service is stopping
	case answer.WaitApplied:
		// Let go early again: perhaps it holds no poll for as long as we ask.
		return jitter(time.Second, 0.5)
	}
	return jitter(p.o.Interval, 0.1)
}

// afterError returns how long to wait after an error, or the error when it is to
// end the loop.
func (p *pace) afterError(answer Answer, err error) (time.Duration, error) {
	if errors.Is(err, ErrRefused) {
		p.o.Metrics.polls.WithLabelValues("refused").Inc()
		return 0, err
	}
	wait := p.backoff.NextBackOff()
	if answer.RetryAfter > 0 && !p.o.IgnoreRetryAfter {
		asked := jitterUp(min(max(answer.RetryAfter, minRetryAfter), maxRetryAfter))
		if p.tied {
			asked = max(asked, wait)
		}
		wait = asked
	}
	p.tied = false
	p.o.Metrics.polls.WithLabelValues("error").Inc()
	p.o.Log.Warn("poll did not succeed", zap.Error(err), zap.Duration("retry_in", wait))
	return wait, nil
}

// jitter returns d, more or less by up to the given share of it.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*rand.Float64())) //nolint:gosec // spreads load, guards nothing
}

// jitterUp returns d or up to a tenth more: never earlier than was asked for.
func jitterUp(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + 0.1*rand.Float64())) //nolint:gosec // spreads load, guards nothing
}

// spread returns anything from nothing to d.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * rand.Float64()) //nolint:gosec // spreads load, guards nothing
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
