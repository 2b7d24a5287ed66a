package fake_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/backendtest"
	"github.com/longshore-run/longshore/internal/backend/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	dir := t.TempDir()
	backends := map[*testing.T]*fake.Backend{}
	newBackend := func(t *testing.T) backend.Backend {
		backends[t] = fake.New(fake.Script{Executor: play, Directory: dir})
		return backends[t]
	}
	backendtest.Run(t, backendtest.Harness{
		New:   newBackend,
		Next:  func(_ *testing.T, b backend.Backend) backend.Backend { return b },
		Other: func(*testing.T) backend.Backend { return fake.New(fake.Script{}) },
		Half: func(_ *testing.T, b backend.Backend, spec backend.Spec) {
			b.(*fake.Backend).Make(spec.Job.JobID, spec.Job.DeploymentID)
		},
		Lose: func(t *testing.T, id string) { backends[t].Lose(id) },
		File: func(_ *testing.T, id, name string) ([]byte, bool) {
			data, err := os.ReadFile(filepath.Join(dir, id, name))
			return data, err == nil
		},
		Left: func(_ *testing.T, id string) []string {
			left, _ := filepath.Glob(filepath.Join(dir, id))
			return left
		},
		SlowStart: func(*testing.T) (backend.Backend, api.DockerImage) {
			return fake.New(fake.Script{Prepare: func(ctx context.Context, _ backend.Spec, _ io.Writer) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}}), api.DockerImage{}
		},
		BrokenStart: map[string]func(*testing.T, backend.Spec) (backend.Backend, backend.Spec){
			"a script that says so": func(_ *testing.T, spec backend.Spec) (backend.Backend, backend.Spec) {
				return fake.New(fake.Script{Directory: dir, Prepare: func(context.Context, backend.Spec, io.Writer) error {
					return errors.New("no such image")
				}}), spec
			},
		},
	})
}

// play is the suite's test executor as a function.
func play(ctx context.Context, job fake.Job) backend.Exit {
	var said []string
	say := func(lines ...string) { said = append(said, lines...) }
	beside := func(name string) string { return filepath.Join(filepath.Dir(job.File.ReportPath), name) }
	write := func(path, text string) { _ = os.WriteFile(path, []byte(text), 0o600) }
	exit := backend.Exit{}
	for line := range strings.Lines(job.File.Definition.Steps[1].Run) {
		command, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch command {
		case "report":
			data, _ := json.Marshal(api.Report{
				Step: 1, Status: api.StepSucceeded, Delivered: true,
				Outcome: api.Outcome(rest), Message: strings.Join(said, "\n"),
			})
			write(job.File.ReportPath, string(data))
		case "exit":
			exit.Code, _ = strconv.Atoi(rest)
		case "crash":
			return backend.Exit{Code: 2, Reason: rest}
		case "ready":
			write(beside("ready"), "ready")
		case "raw-report":
			write(job.File.ReportPath, rest)
		case "await-term":
			select {
			case <-job.Stop:
			case <-ctx.Done():
			}
		case "count-terms":
			window, _ := time.ParseDuration(rest)
			select {
			case <-time.After(window):
			case <-ctx.Done():
			}
			say("terms=1") // a channel closes once, or panics
		case "hang":
			<-ctx.Done()
		case "job-token":
			say(job.File.JobToken)
		case "environ":
			for _, name := range slices.Sorted(maps.Keys(job.Env)) {
				say(name + "=" + job.Env[name])
			}
		case "write":
			write(filepath.Join(job.File.Directory, rest), "")
		case "spool", "kept":
			name, text, _ := strings.Cut(rest, " ")
			_ = os.MkdirAll(beside(command), 0o700)
			write(filepath.Join(beside(command), name), text)
		case "exists":
			_, err := os.Stat(filepath.Join(job.File.Directory, rest))
			say(fmt.Sprintf("exists=%t", err == nil))
		case "job-mode": // there is no file
			say("no file")
		case "first-process": // nor a process
			say("session=true")
		case "args", "start-directory":
			say("")
		}
	}
	return exit
}

func TestTimeIsThatOfTheBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := fake.New(fake.Script{Executor: func(ctx context.Context, job fake.Job) backend.Exit {
			<-job.Stop
			select {
			case <-time.After(time.Hour):
				return backend.Exit{Code: api.ExitCancelled}
			case <-ctx.Done():
				return backend.Exit{}
			}
		}})
		spec := backendtest.Harness{}.Spec("")
		w, err := b.Start(t.Context(), spec, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := w.Stop(t.Context(), 2*time.Hour); err != nil {
			t.Fatal(err)
		}
		exit, err := w.Wait(t.Context())
		if err != nil || exit.Code != api.ExitCancelled || time.Since(began) != time.Hour {
			t.Errorf("Wait() = %+v, %v after %s, want code %d after an hour", exit, err, time.Since(began), api.ExitCancelled)
		}
		if got := b.Jobs(); !slices.Equal(got, []string{spec.Job.JobID}) {
			t.Errorf("Jobs() = %q before Remove", got)
		}
		if err := w.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.Jobs(); len(got) != 0 {
			t.Errorf("Jobs() = %q after Remove", got)
		}
	})
}

func TestTheZeroScriptSucceeds(t *testing.T) {
	w, err := fake.New(fake.Script{}).Start(t.Context(), backendtest.Harness{}.Spec(""), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := w.Wait(t.Context())
	if err != nil || exit.Code != 0 || exit.Report == nil || exit.Report.Outcome != api.OutcomeSucceeded {
		t.Errorf("Wait() = %+v, %v, want success", exit, err)
	}
}
