// Package stall ends what makes no progress: a transfer of which nothing has
// moved for a while, however long it may take as a whole.
package stall

import (
	"context"
	"io"
	"time"
)

// Watch ends its context when nothing has touched it for a while. Its methods
// may be called concurrently.
type Watch struct {
	timer  *time.Timer
	after  time.Duration
	cancel context.CancelCauseFunc
}

// New starts a watch. The context ends with cause when after has passed without
// a Touch. Call Stop when the work is done.
func New(ctx context.Context, after time.Duration, cause error) (context.Context, *Watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &Watch{time.AfterFunc(after, func() { cancel(cause) }), after, cancel}
}

// Touch says that something has moved. After Rest it starts the clock again.
func (w *Watch) Touch() { w.timer.Reset(w.after) }

// Rest stops the clock: until the next Touch nothing is waited for.
func (w *Watch) Rest() { w.timer.Stop() }

// Stop stops the clock for good and ends the context.
func (w *Watch) Stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// Reader returns a reader of r that calls touch for each read that brings
// something.
func Reader(r io.Reader, touch func()) io.Reader { return reader{r, touch} }

// ReadCloser is Reader for what is to be closed.
func ReadCloser(r io.ReadCloser, touch func()) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{reader{r, touch}, r}
}

type reader struct {
	from  io.Reader
	touch func()
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if n > 0 {
		r.touch()
	}
	return n, err
}
