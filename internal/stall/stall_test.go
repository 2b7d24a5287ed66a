package stall_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longshore-run/longshore/internal/stall"
)

var errStalled = errors.New("stalled")

func TestWatch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    func(w *stall.Watch)
		ended time.Duration // 0: it has not after an hour
	}{
		"nothing moves": {func(*stall.Watch) {}, time.Minute},
		"it moves for a while": {func(w *stall.Watch) {
			for range 5 {
				time.Sleep(50 * time.Second)
				w.Touch()
			}
		}, 310 * time.Second},
		"it rests":             {func(w *stall.Watch) { w.Rest() }, 0},
		"it rests and goes on": {func(w *stall.Watch) { w.Rest(); time.Sleep(10 * time.Minute); w.Touch() }, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, w := stall.New(t.Context(), time.Minute, errStalled)
				defer w.Stop()
				go c.do(w)
				select {
				case <-ctx.Done():
					if took := time.Since(began); took != c.ended || context.Cause(ctx) != errStalled { //nolint:errorlint // this very one
						t.Errorf("ended after %s with %v, want %s", took, context.Cause(ctx), c.ended)
					}
				case <-time.After(time.Hour):
					if c.ended != 0 {
						t.Error("it did not end")
					}
				}
			})
		})
	}
}

func TestStopIsNoStall(t *testing.T) {
	t.Parallel()
	ctx, w := stall.New(t.Context(), time.Hour, errStalled)
	w.Stop()
	if context.Cause(ctx) != context.Canceled { //nolint:errorlint // this very one
		t.Errorf("cause = %v, want %v", context.Cause(ctx), context.Canceled)
	}
}

func TestReadersTouchForWhatTheyBring(t *testing.T) {
	t.Parallel()
	touched := 0
	touch := func() { touched++ }
	r := stall.ReadCloser(io.NopCloser(stall.Reader(strings.NewReader("abc"), touch)), touch)
	if content, err := io.ReadAll(r); string(content) != "abc" || err != nil || r.Close() != nil {
		t.Errorf("read %q, %v", content, err)
	}
	if touched != 2 { // each of the two once, and neither for the end
		t.Errorf("touched %d times, want 2", touched)
	}
}
