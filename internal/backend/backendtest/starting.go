package backendtest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

func (h Harness) starting(t *testing.T) {
	t.Run("a job file may be large", func(t *testing.T) {
		spec := h.Spec("job-token", "report succeeded")
		spec.Job.Definition.Env["LARGE"] = strings.Repeat("0123456789abcdef", 64<<10)
		got := message(t, wait(t, h.start(t, h.New(t), spec)))[0]
		if got != spec.Job.JobToken {
			t.Errorf("the executor read %q, want %q", got, spec.Job.JobToken)
		}
	})
	t.Run("setup gets whole lines", func(t *testing.T) {
		var setup strings.Builder
		w, err := h.New(t).Start(t.Context(), h.Spec("report succeeded"), &setup)
		if err != nil {
			t.Fatalf("Start() = %v", err)
		}
		defer func() { _ = w.Remove(context.WithoutCancel(t.Context())) }()
		if text := setup.String(); text == "" || !strings.HasSuffix(text, "\n") {
			t.Errorf("setup got %q, want lines", text)
		}
	})
	t.Run("the end of the context after Start does not touch the job", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		spec := h.Spec("ready", "await-term", "report cancelled", "exit 12")
		w, err := h.New(t).Start(ctx, spec, io.Discard)
		if err != nil {
			t.Fatalf("Start() = %v", err)
		}
		defer func() { _ = w.Remove(context.WithoutCancel(t.Context())) }()
		cancel()
		h.ready(t, spec)
		if err := w.Stop(t.Context(), patience); err != nil {
			t.Fatalf("Stop() = %v", err)
		}
		if exit := wait(t, w); exit.Code != 12 {
			t.Errorf("Wait() = %+v, want code 12: the job's own end", exit)
		}
	})
	t.Run("a context that ended starts nothing", func(t *testing.T) {
		cause := errors.New("the deployment was cancelled")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		spec := h.Spec("hang")
		if _, err := h.New(t).Start(ctx, spec, io.Discard); !errors.Is(err, cause) {
			t.Errorf("Start() = %v, want %v", err, cause)
		}
		h.gone(t, spec)
	})
	t.Run("a context that ends halfway ends Start at once, and leaves nothing", h.cancelHalfway)
	t.Run("a context that ends at any moment leaves nothing", h.cancelAnywhere)
	for name, broken := range h.BrokenStart {
		t.Run("an error leaves nothing: "+name, func(t *testing.T) {
			b, spec := broken(t, h.Spec("hang"))
			w, err := b.Start(t.Context(), spec, io.Discard)
			if err == nil {
				_ = w.Remove(t.Context())
				t.Fatal("Start() = nil, want an error")
			}
			t.Logf("Start() = %v", err)
			h.gone(t, spec)
		})
	}
	t.Run("eight at the same time", func(t *testing.T) {
		b := h.New(t)
		var jobs sync.WaitGroup
		for range 8 {
			jobs.Go(func() {
				spec := h.Spec("job-token", "report succeeded")
				w, err := b.Start(t.Context(), spec, io.Discard)
				if err != nil {
					t.Errorf("Start() = %v", err)
					return
				}
				exit, err := w.Wait(t.Context())
				if err != nil || exit.Report == nil || exit.Report.Message != spec.Job.JobToken {
					t.Errorf("Wait() = %+v, %v, want the job's own report", exit, err)
				}
				if err := w.Remove(t.Context()); err != nil {
					t.Errorf("Remove() = %v", err)
				}
				h.gone(t, spec)
			})
		}
		jobs.Wait()
	})
}

func (h Harness) cancelHalfway(t *testing.T) {
	if h.SlowStart == nil {
		t.Skip("nothing takes long in a start of this backend")
	}
	b, image := h.SlowStart(t)
	spec := h.Spec("hang")
	spec.Image = image
	cause := errors.New("the deployment was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := b.Start(ctx, spec, io.Discard)
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("Start() = %v before its context ended", err)
	case <-time.After(300 * time.Millisecond):
	}
	cancel(cause)
	select {
	case err := <-answer:
		if !errors.Is(err, cause) {
			t.Errorf("Start() = %v, want %v", err, cause)
		}
	case <-time.After(5 * time.Second):
		t.Error("Start() did not return within 5 s of the end of its context")
	}
	h.gone(t, spec)
}

// cancelAnywhere cuts starts off at moments spread over the time that one
// takes.
func (h Harness) cancelAnywhere(t *testing.T) {
	b := h.New(t)
	began := time.Now()
	spec := h.Spec("report succeeded")
	w := h.start(t, b, spec)
	whole := time.Since(began)
	wait(t, w)
	const cuts = 8
	for i := range cuts {
		ctx, cancel := context.WithTimeout(t.Context(), whole*time.Duration(i+1)/cuts)
		spec := h.Spec("hang")
		w, err := b.Start(ctx, spec, io.Discard)
		cancel()
		if err == nil {
			if err := w.Remove(t.Context()); err != nil {
				t.Errorf("Remove() = %v", err)
			}
		}
		h.gone(t, spec)
	}
}
