package backendtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

// Run checks that the backends of a harness keep the contract.
func Run(t *testing.T, h Harness) {
	t.Run("a healthy backend passes its check", func(t *testing.T) {
		if err := h.New(t).Check(t.Context()); err != nil {
			t.Errorf("Check() = %v, want nil", err)
		}
	})
	t.Run("ending", h.ending)
	t.Run("stopping", h.stopping)
	t.Run("removing", h.removing)
	t.Run("starting", h.starting)
	t.Run("keeping apart", h.keepingApart)
	t.Run("adopting", h.adopting)
}

func (h Harness) ending(t *testing.T) {
	for name, test := range map[string]struct {
		script []string
		code   int
	}{
		"success is code 0":                {[]string{"report succeeded"}, 0},
		"a failed step is code 10":         {[]string{"report step-failed", "exit 10"}, 10},
		"any other code is passed on, too": {[]string{"report", "exit 77"}, 77},
	} {
		t.Run(name, func(t *testing.T) {
			if exit := h.run(t, test.script...); exit.Code != test.code || exit.OutOfMemory {
				t.Errorf("Wait() = %+v, want code %d", exit, test.code)
			}
		})
	}
	t.Run("the report is read back", func(t *testing.T) {
		spec := h.Spec("job-token", "report succeeded")
		exit := wait(t, h.start(t, h.New(t), spec))
		want := &api.Report{Step: 1, Status: api.StepSucceeded, Delivered: true, Outcome: api.OutcomeSucceeded, Message: spec.Job.JobToken}
		if diff := cmp.Diff(want, exit.Report); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
	})
	t.Run("what is no report is none", func(t *testing.T) {
		if exit := h.run(t, "raw-report {not json"); exit.Report != nil {
			t.Errorf("Wait() = %+v, want no report", exit)
		}
	})
	t.Run("no report is none", func(t *testing.T) {
		if exit := h.run(t, "exit 0"); exit.Report != nil || exit.Code != 0 {
			t.Errorf("Wait() = %+v, want code 0 and no report", exit)
		}
	})
	t.Run("a crash leaves its last words", func(t *testing.T) {
		exit := h.run(t, "crash the executor is broken")
		if exit.Code == 0 || !strings.Contains(exit.Reason, "the executor is broken") {
			t.Errorf("Wait() = %+v, want a code and the panic in the reason", exit)
		}
	})
	t.Run("waiting twice answers the same, also after Remove", func(t *testing.T) {
		w := h.start(t, h.New(t), h.Spec("report step-failed", "exit 10"))
		first := wait(t, w)
		second := wait(t, w)
		if err := w.Remove(t.Context()); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
		third := wait(t, w)
		if !cmp.Equal(first, second) || !cmp.Equal(first, third) {
			t.Errorf("Wait() = %+v, then %+v, then %+v", first, second, third)
		}
	})
	t.Run("waiting ends with its context, and the job goes on", func(t *testing.T) {
		spec := h.Spec("ready", "await-term", "report cancelled", "exit 12")
		w := h.start(t, h.New(t), spec)
		h.ready(t, spec)
		cause := errors.New("the test gives up")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if _, err := w.Wait(ctx); !errors.Is(err, cause) {
			t.Errorf("Wait() = %v, want %v", err, cause)
		}
		if err := w.Stop(t.Context(), patience); err != nil {
			t.Fatalf("Stop() = %v", err)
		}
		if exit := wait(t, w); exit.Code != 12 {
			t.Errorf("Wait() = %+v, want code 12", exit)
		}
	})
	t.Run("a spool is handed out, and nothing when there is none", h.spool)
	t.Run("what a job leaves is handed out, and nothing when there is none", h.kept)
	t.Run("a job that was removed by others is gone", h.lost)
	t.Run("out of memory is said, whatever the code", h.outOfMemory)
}

func (h Harness) spool(t *testing.T) {
	w := h.start(t, h.New(t), h.Spec("report succeeded"))
	wait(t, w)
	if dir, err := w.Spool(t.Context(), t.TempDir()); dir != "" || err != nil {
		t.Errorf("Spool() = %q, %v, want none", dir, err)
	}
	w = h.start(t, h.New(t), h.Spec("spool 00000001.spool lines that wait", "spool acked 1", "report"))
	wait(t, w)
	dir, err := w.Spool(t.Context(), t.TempDir())
	if err != nil || dir == "" {
		t.Fatalf("Spool() = %q, %v", dir, err)
	}
	for name, want := range map[string]string{"00000001.spool": "lines that wait", "acked": "1"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

func (h Harness) kept(t *testing.T) {
	w := h.start(t, h.New(t), h.Spec("report succeeded"))
	wait(t, w)
	if dir, err := w.Kept(t.Context(), t.TempDir()); dir != "" || err != nil {
		t.Errorf("Kept() = %q, %v, want none", dir, err)
	}
	w = h.start(t, h.New(t), h.Spec("kept known_hosts a line", "report succeeded"))
	wait(t, w)
	dir, err := w.Kept(t.Context(), t.TempDir())
	if err != nil || dir == "" {
		t.Fatalf("Kept() = %q, %v", dir, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "known_hosts")); err != nil || string(got) != "a line" {
		t.Errorf("known_hosts: %q, %v", got, err)
	}
}

func (h Harness) lost(t *testing.T) {
	if h.Lose == nil {
		t.Skip("nobody else can remove a job of this backend")
	}
	spec := h.Spec("ready", "hang")
	w := h.start(t, h.New(t), spec)
	h.ready(t, spec)
	answer := make(chan error, 1)
	go func() {
		_, err := w.Wait(t.Context())
		answer <- err
	}()
	h.Lose(t, spec.Job.JobID)
	select {
	case err := <-answer:
		if !errors.Is(err, backend.ErrGone) {
			t.Errorf("Wait() = %v, want %v", err, backend.ErrGone)
		}
	case <-time.After(patience):
		t.Error("Wait() did not notice")
	}
	if err := w.Stop(t.Context(), time.Second); err != nil {
		t.Errorf("Stop() = %v, want nil for what has ended", err)
	}
}

func (h Harness) outOfMemory(t *testing.T) {
	if !h.EnforcesMemory {
		t.Skip("this backend does not limit memory")
	}
	for name, script := range map[string][]string{
		"the executor itself is killed":               {"allocate 512"},
		"only a child is killed, and the job says 0":  {"child-allocate 512", "report succeeded"},
		"only a child is killed, and the step failed": {"child-allocate 512", "report step-failed", "exit 10"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := h.Spec(script...)
			spec.Limits = backend.Limits{MemoryBytes: 64 << 20, Pids: 100, CPUs: 1}
			if exit := wait(t, h.start(t, h.New(t), spec)); !exit.OutOfMemory {
				t.Errorf("Wait() = %+v, want OutOfMemory", exit)
			}
		})
	}
}

func (h Harness) stopping(t *testing.T) {
	t.Run("the executor is asked once, however often Stop is called", func(t *testing.T) {
		spec := h.Spec("ready", "await-term", "count-terms 500ms", "report cancelled", "exit 12")
		w := h.start(t, h.New(t), spec)
		h.ready(t, spec)
		var stops sync.WaitGroup
		for range 3 {
			stops.Go(func() {
				if err := w.Stop(t.Context(), patience); err != nil {
					t.Errorf("Stop() = %v", err)
				}
			})
		}
		stops.Wait()
		exit := wait(t, w)
		if got := message(t, exit); exit.Code != 12 || got[0] != "terms=1" {
			t.Errorf("Wait() = %+v, want code 12 after one SIGTERM", exit)
		}
	})
	t.Run("an executor that does not listen is killed after the grace", func(t *testing.T) {
		spec := h.Spec("ready", "hang")
		w := h.start(t, h.New(t), spec)
		h.ready(t, spec)
		const grace = 300 * time.Millisecond
		began := time.Now()
		if err := w.Stop(t.Context(), grace); err != nil {
			t.Fatalf("Stop() = %v", err)
		}
		if took := time.Since(began); took < grace {
			t.Errorf("Stop() killed after %s, want at least %s", took, grace)
		}
		if exit := wait(t, w); exit.Code != 137 || exit.Report != nil || !strings.Contains(exit.Reason, "SIGKILL") {
			t.Errorf("Wait() = %+v, want code 137 and the reason", exit)
		}
	})
	t.Run("nothing survives a kill, not even what left the session", func(t *testing.T) {
		spec := h.Spec("escape", "ready", "hang")
		w := h.start(t, h.New(t), spec)
		h.ready(t, spec)
		if err := w.Stop(t.Context(), 0); err != nil {
			t.Fatalf("Stop() = %v", err)
		}
		if err := w.Remove(t.Context()); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
		h.gone(t, spec)
	})
	t.Run("a background process does not outlive its executor", func(t *testing.T) {
		spec := h.Spec("escape", "report succeeded")
		w := h.start(t, h.New(t), spec)
		if exit := wait(t, w); exit.Code != 0 {
			t.Errorf("Wait() = %+v, want code 0", exit)
		}
		if err := w.Remove(t.Context()); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
		h.gone(t, spec)
	})
	t.Run("stopping what has ended is no error", func(t *testing.T) {
		w := h.start(t, h.New(t), h.Spec("report succeeded"))
		exit := wait(t, w)
		if err := w.Stop(t.Context(), time.Second); err != nil {
			t.Errorf("Stop() = %v, want nil", err)
		}
		if again := wait(t, w); !cmp.Equal(exit, again) {
			t.Errorf("Wait() = %+v before Stop and %+v after", exit, again)
		}
	})
	t.Run("a stop ends with its context, and asks no second time", func(t *testing.T) {
		spec := h.Spec("ready", "await-term", "count-terms 700ms", "report cancelled", "exit 12")
		w := h.start(t, h.New(t), spec)
		h.ready(t, spec)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := w.Stop(ctx, patience); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop() = %v, want the end of its context", err)
		}
		if err := w.Stop(t.Context(), patience); err != nil {
			t.Errorf("Stop() = %v", err)
		}
		if got := message(t, wait(t, w)); got[0] != "terms=1" {
			t.Errorf("the executor saw %q, want terms=1", got[0])
		}
	})
}

func (h Harness) removing(t *testing.T) {
	t.Run("a job that runs is killed, and frees everything", func(t *testing.T) {
		spec := h.Spec("ready", "hang")
		w := h.start(t, h.New(t), spec)
		h.ready(t, spec)
		if err := w.Remove(t.Context()); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
		h.gone(t, spec)
		if exit := wait(t, w); exit.Code != 137 {
			t.Errorf("Wait() = %+v, want code 137", exit)
		}
	})
	t.Run("again and at the same time", func(t *testing.T) {
		spec := h.Spec("report succeeded")
		w := h.start(t, h.New(t), spec)
		wait(t, w)
		var removes sync.WaitGroup
		for range 4 {
			removes.Go(func() {
				if err := w.Remove(t.Context()); err != nil {
					t.Errorf("Remove() = %v", err)
				}
			})
		}
		removes.Wait()
		if err := w.Remove(t.Context()); err != nil {
			t.Errorf("Remove() again = %v, want nil", err)
		}
		h.gone(t, spec)
	})
	t.Run("a Wait in progress answers", func(t *testing.T) {
		spec := h.Spec("ready", "hang")
		w := h.start(t, h.New(t), spec)
		h.ready(t, spec)
		answer := make(chan backend.Exit, 1)
		go func() {
			exit, err := w.Wait(t.Context())
			if err != nil {
				t.Errorf("Wait() = %v", err)
			}
			answer <- exit
		}()
		if err := w.Remove(t.Context()); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
		select {
		case exit := <-answer:
			if exit.Code != 137 {
				t.Errorf("Wait() = %+v, want code 137", exit)
			}
		case <-time.After(patience):
			t.Error("Wait() never returned")
		}
	})
}

func (h Harness) keepingApart(t *testing.T) {
	t.Run("the job file is the user's alone", func(t *testing.T) {
		got := message(t, h.run(t, "job-mode", "report succeeded"))[0]
		if got != "no file" && got != "-rw------- owner=true" {
			t.Errorf("job file: %q, want none, or mode 0600 and its reader as owner", got)
		}
	})
	t.Run("the executor is the first process of its own session", func(t *testing.T) {
		if got := message(t, h.run(t, "first-process", "report succeeded"))[0]; !strings.HasSuffix(got, "session=true") {
			t.Errorf("executor: %s, want a session of its own", got)
		}
	})
	t.Run("the job file can be removed by the executor", func(t *testing.T) {
		if exit := h.run(t, "remove-job-file", "report succeeded"); exit.Code != 0 {
			t.Errorf("Wait() = %+v, want code 0", exit)
		}
	})
	t.Run("no secret shows outside of the job", h.secrets)
	t.Run("nothing of the agent's environment reaches the job", func(t *testing.T) {
		t.Setenv("LONGSHORE_SUITE_SECRET", "of-the-agent")
		spec := h.Spec("environ", "report succeeded")
		spec.Env = map[string]string{"FROM_SPEC": "of the spec"}
		env := message(t, wait(t, h.start(t, h.New(t), spec)))
		if !slices.Contains(env, "FROM_SPEC=of the spec") {
			t.Errorf("environment %q lacks what the spec says", env)
		}
		for _, entry := range env {
			if strings.Contains(entry, "of-the-agent") || strings.Contains(entry, "secret-") {
				t.Errorf("environment holds %q", entry)
			}
		}
	})
	t.Run("two jobs do not share their files", h.twoJobs)
	t.Run("where steps start can be written to", func(t *testing.T) {
		if exit := h.run(t, "write probe", "exists probe", "report succeeded"); message(t, exit)[0] != "exists=true" {
			t.Errorf("Wait() = %+v, want the file written", exit)
		}
	})
	t.Run("labels say whose it is", func(t *testing.T) {
		if h.Labels == nil {
			t.Skip("this backend has no labels")
		}
		spec := h.Spec("ready", "hang")
		h.start(t, h.New(t), spec)
		h.ready(t, spec)
		got := h.Labels(t, spec.Job.JobID)
		for label, want := range map[string]string{
			backend.LabelPool: spec.Pool, backend.LabelAgent: spec.Agent,
			backend.LabelJob: spec.Job.JobID, backend.LabelDeployment: spec.Job.DeploymentID,
		} {
			if got[label] != want {
				t.Errorf("label %s = %q, want %q", label, got[label], want)
			}
		}
	})
}

func (h Harness) secrets(t *testing.T) {
	spec := h.Spec("args", "report succeeded", "ready", "hang")
	w := h.start(t, h.New(t), spec)
	h.ready(t, spec)
	if h.Describe != nil {
		seen := h.Describe(t, spec.Job.JobID)
		if !strings.Contains(seen, spec.Job.JobID) {
			t.Errorf("Describe() does not know the job:\n%s", seen)
		}
		for _, secret := range []string{spec.Job.JobToken, spec.Job.Definition.Env["DEFINED"]} {
			if strings.Contains(seen, secret) {
				t.Errorf("others can see %q:\n%s", secret, seen)
			}
		}
	}
	if err := w.Stop(t.Context(), 0); err != nil {
		t.Fatalf("Stop() = %v", err)
	}
	if args := fmt.Sprint(message(t, wait(t, w))); strings.Contains(args, "secret-") {
		t.Errorf("the executor's arguments hold a secret: %s", args)
	}
}

func (h Harness) twoJobs(t *testing.T) {
	b := h.New(t)
	first := h.Spec("write kept-apart", "start-directory", "report succeeded", "ready", "hang")
	w := h.start(t, b, first)
	h.ready(t, first)
	path := "kept-apart"
	if h.Isolates {
		data, _ := h.File(t, first.Job.JobID, "report.json")
		if !strings.Contains(string(data), "message") {
			t.Fatalf("report.json = %q, want the start directory", data)
		}
		path = "/kept-apart"
	}
	second := h.Spec("exists "+path, "report succeeded")
	if got := message(t, wait(t, h.start(t, b, second)))[0]; got != "exists=false" {
		t.Errorf("the second job finds the file of the first: %s", got)
	}
	if err := w.Stop(t.Context(), 0); err != nil {
		t.Fatalf("Stop() = %v", err)
	}
}
