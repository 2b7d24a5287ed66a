package fake

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

// ErrKilled is the cause of the context of a job that was killed.
var ErrKilled = errors.New("killed")

// killedCode is 128 plus SIGKILL.
const killedCode = 137

type workload struct {
	backend *Backend
	id, dir string

	deployment string
	started    bool

	running context.Context // canceled when the job is killed
	kill    context.CancelCauseFunc

	askOnce, loseOnce sync.Once
	asked             chan struct{} // closed by the first Stop
	gone              chan struct{} // closed when somebody else removed the job
	ended             chan struct{} // closed when the executor has returned
	exit              backend.Exit  // valid once ended is closed
}

// run is the job; it owns exit until it closes ended.
func (w *workload) run(executor func(context.Context, Job) backend.Exit, job Job) {
	defer close(w.ended)
	defer w.kill(nil)
	exit := backend.Exit{Report: &api.Report{
		Step: len(job.File.Definition.Steps) - 1, Status: api.StepSucceeded,
		Delivered: true, Outcome: api.OutcomeSucceeded,
	}}
	if executor != nil {
		exit = executor(w.running, job)
	}
	if errors.Is(context.Cause(w.running), ErrKilled) {
		exit = backend.Exit{Code: killedCode, Reason: "killed by SIGKILL"}
	}
	if exit.Report == nil && w.dir != "" {
		exit.Report = readReport(filepath.Join(w.dir, "report.json"))
	}
	w.exit = exit
}

// ID returns the id of the job.
func (w *workload) ID() string { return "fake-" + w.id }

// Wait returns how the executor ended.
func (w *workload) Wait(ctx context.Context) (backend.Exit, error) {
	select {
	case <-w.gone:
		return backend.Exit{}, backend.ErrGone
	case <-w.ended:
		select {
		case <-w.gone:
			return backend.Exit{}, backend.ErrGone
		default:
			return w.exit, nil
		}
	case <-ctx.Done():
		return backend.Exit{}, context.Cause(ctx)
	}
}

// Stop closes Job.Stop and cancels the executor's context after grace.
func (w *workload) Stop(ctx context.Context, grace time.Duration) error {
	w.askOnce.Do(func() { close(w.asked) })
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-w.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	w.kill(ErrKilled)
	select {
	case <-w.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Spool returns the spool beside the report, when the job has a directory.
func (w *workload) Spool(context.Context, string) (string, error) { return w.below("spool") }

// Kept returns what the job leaves beside the report, when it has a directory.
func (w *workload) Kept(context.Context, string) (string, error) { return w.below("kept") }

func (w *workload) below(name string) (string, error) {
	dir := filepath.Join(w.dir, name)
	if _, err := os.Stat(dir); w.dir == "" || err != nil {
		return "", nil //nolint:nilerr // there is none
	}
	return dir, nil
}

// Remove kills the job, waits for its end and removes its directory.
func (w *workload) Remove(ctx context.Context) error {
	w.kill(ErrKilled)
	select {
	case <-w.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.backend.drop(w)
	if w.dir == "" {
		return nil
	}
	return os.RemoveAll(w.dir)
}

// readReport returns nil for a report that is not there or not readable.
func readReport(path string) *api.Report {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var report api.Report
	if json.Unmarshal(data, &report) != nil {
		return nil
	}
	return &report
}
