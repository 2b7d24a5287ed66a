// Package fake is a backend for tests of what stands above one: it keeps the
// contract of package backend, and a Go function plays the executor.
package fake

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

// Job is what the function that plays the executor gets to know.
type Job struct {
	File api.JobFile
	Env  map[string]string
	// Stop is closed when the job is asked to cancel: the SIGTERM of other
	// backends. It is closed at most once.
	Stop <-chan struct{}
}

// Script says how a Backend behaves. The zero Script starts every job and lets
// it succeed at once. Its functions may be called concurrently.
type Script struct {
	// Executor plays the executor. Its ctx is canceled with ErrKilled when the
	// job is killed; it must then return, and what it returns is ignored. Nil
	// succeeds at once.
	Executor func(ctx context.Context, job Job) backend.Exit
	// Check answers Backend.Check. Nil says that all is well.
	Check func(ctx context.Context) error
	// Prepare plays what goes before the executor, such as a pull that writes to
	// setup, takes its time, or returns the error that Start then returns.
	Prepare func(ctx context.Context, spec backend.Spec, setup io.Writer) error
	// Directory, when set, gives every job a directory below it, where
	// JobFile.Directory and JobFile.ReportPath point. A report found there
	// becomes Exit.Report when Executor returned none.
	Directory string
}

// Backend is a backend whose jobs are goroutines.
type Backend struct {
	script Script

	mu   sync.Mutex
	jobs map[string]*workload // by job id, until removed
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend that follows script.
func New(script Script) *Backend {
	return &Backend{script: script, jobs: map[string]*workload{}}
}

// Check answers as the script says.
func (b *Backend) Check(ctx context.Context) error {
	if b.script.Check == nil {
		return ctx.Err()
	}
	return b.script.Check(ctx)
}

// Start prepares as the script says, then runs its Executor in a goroutine.
func (b *Backend) Start(ctx context.Context, spec backend.Spec, setup io.Writer) (backend.Workload, error) {
	if b.script.Prepare != nil {
		if err := b.script.Prepare(ctx, spec, setup); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// The job outlives ctx, so it gets one of its own.
	running, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	w := &workload{
		backend: b, id: spec.Job.JobID, deployment: spec.Job.DeploymentID, started: true,
		running: running, kill: kill,
		asked: make(chan struct{}), ended: make(chan struct{}), gone: make(chan struct{}),
	}
	if err := b.add(w); err != nil {
		kill(nil)
		return nil, err
	}
	if err := w.makeDirectory(&spec.Job); err != nil {
		b.drop(w)
		kill(nil)
		return nil, err
	}
	fmt.Fprintf(setup, "started %s\n", w.ID())
	job := Job{File: spec.Job, Env: maps.Clone(spec.Env), Stop: w.asked}
	go w.run(b.script.Executor, job)
	return w, nil
}

// Jobs returns the ids of the jobs that were started and not yet removed.
func (b *Backend) Jobs() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]string, 0, len(b.jobs))
	for id := range b.jobs {
		ids = append(ids, id)
	}
	return ids
}

// Left lists the jobs that were not removed.
func (b *Backend) Left(ctx context.Context) ([]backend.Remnant, error) {
	if b.script.Check != nil { // a place that cannot start a job cannot be asked either
		if err := b.script.Check(ctx); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	left := make([]backend.Remnant, 0, len(b.jobs))
	for id, w := range b.jobs {
		left = append(left, backend.Remnant{JobID: id, DeploymentID: w.deployment, Started: w.started})
	}
	return left, nil
}

// Adopt returns the workload of a job that was not removed: the same one, for
// there is one process only.
func (b *Backend) Adopt(_ context.Context, jobID string) (backend.Workload, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.jobs[jobID]; w != nil {
		return w, nil
	}
	return nil, backend.ErrGone
}

// Sweep finds nothing: jobs are all there is.
func (b *Backend) Sweep(context.Context) ([]string, error) { return nil, nil }

// Make adds a job that was made and not started, as an agent leaves it that is
// killed in between.
func (b *Backend) Make(jobID, deploymentID string) {
	running, kill := context.WithCancelCause(context.Background())
	w := &workload{
		backend: b, id: jobID, deployment: deploymentID, running: running, kill: kill,
		asked: make(chan struct{}), ended: make(chan struct{}), gone: make(chan struct{}),
	}
	close(w.ended)
	_ = b.add(w)
}

// Lose makes a job disappear, as if somebody else had removed it: its Wait
// returns backend.ErrGone.
func (b *Backend) Lose(jobID string) {
	b.mu.Lock()
	w := b.jobs[jobID]
	b.mu.Unlock()
	if w != nil {
		w.loseOnce.Do(func() { close(w.gone) })
		_ = w.Remove(context.Background())
	}
}

func (b *Backend) add(w *workload) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, exists := b.jobs[w.id]; exists {
		return fmt.Errorf("job %s was started before and not removed", w.id)
	}
	b.jobs[w.id] = w
	return nil
}

func (b *Backend) drop(w *workload) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.jobs[w.id] == w {
		delete(b.jobs, w.id)
	}
}

func (w *workload) makeDirectory(job *api.JobFile) error {
	if w.backend.script.Directory == "" {
		return nil
	}
	w.dir = filepath.Join(w.backend.script.Directory, job.JobID)
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return err
	}
	job.Directory = filepath.Join(w.dir, "work")
	job.ReportPath = filepath.Join(w.dir, "report.json")
	return os.Mkdir(job.Directory, 0o700)
}
