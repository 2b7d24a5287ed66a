// Package lifecycle turns the signals of an operator into the stops of a
// program: the first drains it, the second cancels what it still does, the
// third leaves at once. The one function is Stops.
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

// Stops listens to signals until done is called. The first signal closes drain:
// claim no more, let work finish. The second cancels the returned context with
// the cause ErrCancelled: end the work, and still say how it ended. The third
// exits the process with status 130.
//
// When ctx ends by itself, drain stays open and the returned context ends with
// it. Call done when the program has nothing left to stop; it waits for the
// listener, cancels the returned context and gives the signals back to the
// runtime, so that the next one kills.
func Stops(ctx context.Context, signals ...os.Signal) (stopCtx context.Context, drain <-chan struct{}, done func()) {
	stopCtx, cancel := context.WithCancelCause(ctx)
	draining, quit := make(chan struct{}), make(chan struct{})
	received := make(chan os.Signal, 3) // room for all that count, should they come at once
	signal.Notify(received, signals...)

	var listener sync.WaitGroup
	listener.Go(func() {
		for count := 1; ; count++ {
			select {
			case <-quit:
				return
			case sig := <-received:
				switch count {
				case 1:
					close(draining)
				case 2:
					cancel(fmt.Errorf("%w (%v)", ErrCancelled, sig))
				default:
					os.Exit(exitKilled)
				}
			}
		}
	})
	var once sync.Once
	return stopCtx, draining, func() {
		once.Do(func() {
			signal.Stop(received)
			close(quit)
			listener.Wait()
			cancel(nil)
		})
	}
}
