package backendtest

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

// adopting checks what a later process of the same agent can do with a job.
func (h Harness) adopting(t *testing.T) {
	if h.Next == nil {
		t.Skip("this backend's test cannot play a later process of the agent")
	}
	t.Run("a running job is listed, taken over, and tells how it ends", func(t *testing.T) {
		first := h.New(t)
		spec := h.Spec("ready", "await-term", "report cancelled", "exit 12")
		h.start(t, first, spec)
		h.ready(t, spec)
		next := h.Next(t, first)
		h.listed(t, next, spec, true)
		w, err := next.Adopt(t.Context(), spec.Job.JobID)
		if err != nil {
			t.Fatalf("Adopt() = %v", err)
		}
		if err := w.Stop(t.Context(), patience); err != nil {
			t.Fatalf("Stop() = %v", err)
		}
		exit := wait(t, w)
		if exit.Code != api.ExitCancelled || exit.Report == nil || exit.Report.Outcome != api.OutcomeCancelled {
			t.Errorf("Wait() = %+v, want the job's own end", exit)
		}
		if err := w.Remove(t.Context()); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
		h.gone(t, spec)
		h.listed(t, next, spec, false)
	})
	t.Run("a job that ended meanwhile tells how", func(t *testing.T) {
		first := h.New(t)
		spec := h.Spec("report step-failed", "exit 10")
		want := wait(t, h.start(t, first, spec))
		w, err := h.Next(t, first).Adopt(t.Context(), spec.Job.JobID)
		if err != nil {
			t.Fatalf("Adopt() = %v", err)
		}
		if got := wait(t, w); got.Code != want.Code || !cmp.Equal(got.Report, want.Report) {
			t.Errorf("Wait() = %+v, want %+v", got, want)
		}
	})
	t.Run("a job that crashed meanwhile did not succeed, and its last words are there", func(t *testing.T) {
		first := h.New(t)
		spec := h.Spec("crash the executor is broken")
		wait(t, h.start(t, first, spec))
		w, err := h.Next(t, first).Adopt(t.Context(), spec.Job.JobID)
		if err != nil {
			t.Fatalf("Adopt() = %v", err)
		}
		exit := wait(t, w)
		if exit.Code == 0 || exit.Report != nil && exit.Report.Outcome != "" || exit.Reason == "" {
			t.Errorf("Wait() = %+v, want a crash with a reason", exit)
		}
	})
	t.Run("a taken over job can be killed with all that it started", func(t *testing.T) {
		first := h.New(t)
		spec := h.Spec("ready", "hang")
		h.start(t, first, spec)
		h.ready(t, spec)
		w, err := h.Next(t, first).Adopt(t.Context(), spec.Job.JobID)
		if err != nil {
			t.Fatalf("Adopt() = %v", err)
		}
		if err := w.Remove(t.Context()); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
		if exit := wait(t, w); exit.Code == 0 {
			t.Errorf("Wait() = %+v, want an end by force", exit)
		}
		h.gone(t, spec)
	})
	t.Run("a job that was removed is gone", func(t *testing.T) {
		first := h.New(t)
		spec := h.Spec("report succeeded")
		if err := h.start(t, first, spec).Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Next(t, first).Adopt(t.Context(), spec.Job.JobID); !errors.Is(err, backend.ErrGone) {
			t.Errorf("Adopt() = %v, want %v", err, backend.ErrGone)
		}
	})
	t.Run("a job that was made and not started is listed as such, and removed", func(t *testing.T) {
		if h.Half == nil {
			t.Skip("this backend's test cannot leave a job half made")
		}
		first := h.New(t)
		spec := h.Spec("report succeeded")
		h.Half(t, first, spec)
		next := h.Next(t, first)
		if r := h.find(t, next, spec); r == nil || r.Started {
			t.Errorf("Left() has %+v, want a job that is not started", r)
		}
		w, err := next.Adopt(t.Context(), spec.Job.JobID)
		if err != nil {
			t.Fatalf("Adopt() = %v", err)
		}
		if err := w.Remove(t.Context()); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
		h.gone(t, spec)
	})
	t.Run("another agent's jobs are not listed, nor taken over", func(t *testing.T) {
		if h.Other == nil {
			t.Skip("there is no other agent in this backend's test")
		}
		spec := h.Spec("ready", "hang")
		h.start(t, h.New(t), spec)
		other := h.Other(t)
		h.listed(t, other, spec, false)
		if _, err := other.Adopt(t.Context(), spec.Job.JobID); !errors.Is(err, backend.ErrGone) {
			t.Errorf("Adopt() = %v, want %v", err, backend.ErrGone)
		}
	})
}

func (h Harness) find(t *testing.T, b backend.Backend, spec backend.Spec) *backend.Remnant {
	t.Helper()
	left, err := b.Left(t.Context())
	if err != nil {
		t.Fatalf("Left() = %v", err)
	}
	i := slices.IndexFunc(left, func(r backend.Remnant) bool { return r.JobID == spec.Job.JobID })
	if i < 0 {
		return nil
	}
	return &left[i]
}

// listed checks whether a job is listed as started.
func (h Harness) listed(t *testing.T, b backend.Backend, spec backend.Spec, want bool) {
	t.Helper()
	r := h.find(t, b, spec)
	if (r != nil) != want {
		t.Fatalf("Left() lists the job: %t, want %t", r != nil, want)
	}
	if r != nil && (!r.Started || r.DeploymentID != spec.Job.DeploymentID) {
		t.Errorf("Left() has %+v, want a started job of deployment %s", *r, spec.Job.DeploymentID)
	}
}
