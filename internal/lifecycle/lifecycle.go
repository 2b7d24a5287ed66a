// Package lifecycle turns the signals of an operator into the stops of a
// program: the first drains it, the second cancels what it still does, the
// third leaves at once. The main type is Stops.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
)

// ErrCancelled is the cause of a context that the second signal cancelled.
var ErrCancelled = errors.New("stopped by a second signal")

// exitKilled is the exit status after a third signal. It stands for a program that was killed:
// nothing is cleaned up and nothing is reported any more.
const exitKilled = 130

// Stops are the two stops of a program, drain and cancel, whoever asks for them.
// Each is taken once, however often it is asked for, and never taken back. The
// methods may be called concurrently.
type Stops struct {
	drain  sync.Once
	drains chan struct{}
	cancel context.CancelCauseFunc

	done     sync.Once
	received chan os.Signal
	quit     chan struct{}
	listener sync.WaitGroup
}

// Listen listens to signals until Done is called. The first signal drains: claim
// no more, let work finish. The second cancels the returned context with the
// cause ErrCancelled: end the work, and still say how it ended. The third calls
// last, which may be nil, for the program's last word, and exits the process
// with status 130.
//
// Signals count for themselves: after a Drain that something else asked for, the
// first signal still cancels nothing, so that a service manager which stops a
// draining program does not cut its work.
//
// When ctx ends by itself, nothing drains and the returned context ends with it.
func Listen(ctx context.Context, last func(), signals ...os.Signal) (context.Context, *Stops) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &Stops{
		drains: make(chan struct{}), cancel: cancel,
		received: make(chan os.Signal, 3), // room for all that count, should they come at once
		quit:     make(chan struct{}),
	}
	signal.Notify(s.received, signals...)
	s.listener.Go(func() { s.listen(last) })
	return ctx, s
}

func (s *Stops) listen(last func()) {
	for count := 1; ; count++ {
		select {
		case <-s.quit:
			return
		case sig := <-s.received:
			switch count {
			case 1:
				s.Drain()
			case 2:
				s.Cancel(fmt.Errorf("%w (%v)", ErrCancelled, sig))
			default:
				if last != nil {
					last()
				}
				os.Exit(exitKilled)
			}
		}
	}
}

// Draining is closed when the program is to drain.
func (s *Stops) Draining() <-chan struct{} { return s.drains }

// Drain makes the program drain, as a first signal does.
func (s *Stops) Drain() { s.drain.Do(func() { close(s.drains) }) }

// Cancel makes the program drain and cancels the context that Listen returned,
// as a second signal does. The first cause counts.
func (s *Stops) Cancel(cause error) {
	s.Drain()
	s.cancel(cause)
}

// Done ends the listening; call it when the program has nothing left to stop. It
// waits for the listener, cancels the context and gives the signals back to the
// runtime, so that the next one kills.
func (s *Stops) Done() {
	s.done.Do(func() {
		signal.Stop(s.received)
		close(s.quit)
		s.listener.Wait()
		s.cancel(nil)
	})
}
