package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/logstream"
)

// flushLimit is how long the end of a step waits for the step's log to be
// accepted, so that who sees the end sees the log. A log that takes longer comes
// after it: the service takes late lines.
const flushLimit = 2 * time.Minute

// service is what a courier needs of *client.Job. Its Step tries until its
// context ends.
type service interface {
	Step(ctx context.Context, index int, s api.StepStatus) error
}

// courier is the workflow's Reporter: it takes statuses without waiting, keeps
// the report, and delivers the statuses in order, each after the log it ends.
type courier struct {
	service service
	streams *logstream.Streams
	report  *reportFile
	log     *zap.Logger

	mu    sync.Mutex
	queue []stepStatus
	step  int
	ended bool // finish was called: nothing will be added

	kick chan struct{}
	done chan struct{} // closed when run has returned
	err  error         // valid after done: why the queue was not delivered
}

type stepStatus struct {
	index  int
	status api.StepStatus
}

func newCourier(s service, streams *logstream.Streams, report *reportFile, log *zap.Logger) *courier {
	return &courier{service: s, streams: streams, report: report, log: log, kick: make(chan struct{}, 1), done: make(chan struct{})}
}

// Step takes over a status.
func (c *courier) Step(index int, s api.StepStatus) {
	c.report.step(index, s)
	c.mu.Lock()
	c.queue = append(c.queue, stepStatus{index, s})
	c.step = index
	c.mu.Unlock()
	c.wake()
}

// Output is the log of a step.
func (c *courier) Output(index int) io.WriteCloser { return c.streams.Step(index) }

func (c *courier) current() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.step
}

func (c *courier) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// finish says that no more statuses come and waits until all are delivered, or
// the context of run ended. It returns why something was not.
func (c *courier) finish(ctx context.Context) error {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.wake()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run delivers until finish was called and the queue is empty, or ctx ends.
// stop is called when the service refuses the job.
func (c *courier) run(ctx context.Context, stop context.CancelCauseFunc) {
	defer close(c.done)
	for {
		next, state := c.next()
		switch state {
		case queueEmpty:
			select {
			case <-c.kick:
			case <-ctx.Done():
				c.err = context.Cause(ctx)
				return
			}
			continue
		case queueOver:
			return
		}
		if err := c.deliver(ctx, next); err != nil {
			c.err = err
			if ctx.Err() != nil {
				return
			}
			if client.Gone(err) {
				stop(ErrRefused)
				return
			}
			// A move that the service does not allow. It knows better, and the
			// heartbeat tells when it wants the job to stop.
			c.log.Warn("status refused", zap.Int("step", next.index), zap.String("status", string(next.status)), zap.Error(err))
		}
	}
}

func (c *courier) deliver(ctx context.Context, next stepStatus) error {
	if next.status.Terminal() && next.index > 0 {
		flushCtx, done := context.WithTimeoutCause(ctx, flushLimit, errors.New("the log takes long"))
		if err := c.streams.Flush(flushCtx); err != nil && ctx.Err() == nil {
			c.log.Warn("status goes ahead of the log", zap.Error(err))
		}
		done()
	}
	if err := c.service.Step(ctx, next.index, next.status); err != nil {
		return fmt.Errorf("report step %d %s: %w", next.index, next.status, err)
	}
	return nil
}

type queueState int

const (
	queueReady queueState = iota
	queueEmpty
	queueOver
)

func (c *courier) next() (stepStatus, queueState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.queue) > 0:
		first := c.queue[0]
		c.queue = c.queue[1:]
		return first, queueReady
	case c.ended:
		return stepStatus{}, queueOver
	}
	return stepStatus{}, queueEmpty
}
