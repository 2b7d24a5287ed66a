// Package process runs each job as processes on the agent's own host, for hosts
// that are themselves made for one team's jobs. It isolates by directories and
// an allow-list of environment variables only: jobs run as the agent's user, and
// limits are not enforced.
//
// A job's executor leads a session of its own and needs nothing from the agent
// once it runs. Its directory, <Directory>/jobs/<job id>, has mode 0700 and
// holds the job file, the report, what a crashed executor printed, and the
// directory "work" in which steps start.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/host"
)

// Names in a job's directory.
const (
	jobFileName  = "job.json"
	reportName   = "report.json"
	crashLogName = "crash.log"
	workName     = "work"
	spoolName    = "spool" // where the executor keeps lines that wait: beside its report
	jobsName     = "jobs"
	probePattern = ".check-*"
	dirMode      = 0o700
	secretMode   = 0o600
	markVariable = "LONGSHORE_JOB_DIRECTORY" // set for the executor and so for all it starts, to find them by
	reasonExec   = "executor"
	reasonSpace  = "workspace"
)

// Config is what a Backend needs to know.
type Config struct {
	// Directory below which jobs get theirs: <Directory>/jobs/<job id>.
	Directory string
	// ExecutorSource finds the executor for the host's architecture.
	ExecutorSource backend.ExecutorSource
	// Env is the agent's environment, as os.Environ returns it. Jobs get of it
	// only what is on the allow-list.
	Env []string
	// MirrorDirectory is what jobs get as theirs.
	MirrorDirectory string
	// Log defaults to none.
	Log *zap.Logger
}

// Backend starts jobs as processes. It is safe for concurrent use.
type Backend struct {
	config Config
	env    []string // the allowed part of Config.Env
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend. It touches nothing; Check and Start do.
func New(config Config) (*Backend, error) {
	if config.ExecutorSource == nil {
		return nil, errors.New("process: no executor source")
	}
	if config.Directory == "" {
		return nil, errors.New("process: no working directory")
	}
	dir, err := filepath.Abs(config.Directory)
	if err != nil {
		return nil, fmt.Errorf("process: working directory: %w", err)
	}
	config.Directory = dir
	if config.Log == nil {
		config.Log = zap.NewNop()
	}
	return &Backend{config: config, env: allowed(config.Env)}, nil
}

// Check reports whether the working directory can be written to.
func (b *Backend) Check(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	jobs, err := b.jobs()
	if err != nil {
		return err
	}
	probe, err := os.CreateTemp(jobs, probePattern)
	if err != nil {
		return fmt.Errorf("working directory %s cannot be written to: make this user its owner, or name another directory: %w", b.config.Directory, err)
	}
	probe.Close()
	return os.Remove(probe.Name())
}

func (b *Backend) jobs() (string, error) {
	jobs := filepath.Join(b.config.Directory, jobsName)
	if err := os.MkdirAll(jobs, dirMode); err != nil {
		return "", fmt.Errorf("working directory: %w: make this user its owner, or name another directory", err)
	}
	return jobs, nil
}

// Start makes the job's directory, writes its file and starts the executor.
func (b *Backend) Start(ctx context.Context, spec backend.Spec, setup io.Writer) (backend.Workload, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	executor, err := b.config.ExecutorSource(ctx, runtime.GOARCH)
	if err != nil {
		return nil, &backend.StartError{Reason: reasonExec, Err: fmt.Errorf("executor for %s: %w", runtime.GOARCH, err)}
	}
	dir, err := b.makeDirectory(spec)
	if err != nil {
		return nil, err
	}
	if spec.Limits != (backend.Limits{}) {
		fmt.Fprintln(setup, "limits of CPU, memory and processes are not enforced for jobs that run as processes")
	}
	w, err := b.startIn(dir, executor, spec) //nolint:contextcheck // the job outlives ctx
	if err == nil && ctx.Err() != nil {
		// Too late to be of use to anybody.
		err = errors.Join(context.Cause(ctx), w.Remove(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	fmt.Fprintf(setup, "started process %s in %s\n", w.ID(), dir)
	return w, nil
}

// makeDirectory makes a job's directory, which must be new: that of a job which
// was started before is not touched.
func (b *Backend) makeDirectory(spec backend.Spec) (string, error) {
	id := spec.Job.JobID
	if !validID(id) {
		return "", fmt.Errorf("job id %q cannot be the name of a directory", id)
	}
	jobs, err := b.jobs()
	if err != nil {
		return "", &backend.StartError{Reason: reasonSpace, Err: err}
	}
	dir := filepath.Join(jobs, id)
	if err := os.Mkdir(dir, dirMode); errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("%s exists already: this job was started before", dir)
	} else if err != nil {
		return "", &backend.StartError{Reason: reasonSpace, Err: err}
	}
	return dir, nil
}

// grace is how long the operation of a job may take to end once it is
// interrupted.
func grace(job api.JobFile) time.Duration {
	if job.Definition.Operation.Changes() {
		return job.ChangeGrace.Std()
	}
	return job.QuickGrace.Std()
}

// validID reports whether a job id can be the name of a directory.
func validID(id string) bool {
	return id != "" && !strings.HasPrefix(id, ".") && !strings.ContainsAny(id, "/\x00")
}

// startIn fills a job's directory and starts the executor there. After an error
// the caller removes the directory.
func (b *Backend) startIn(dir, executor string, spec backend.Spec) (*workload, error) {
	work := filepath.Join(dir, workName)
	if err := os.Mkdir(work, dirMode); err != nil {
		return nil, &backend.StartError{Reason: reasonSpace, Err: err}
	}
	job := spec.Job
	job.Directory, job.ReportPath, job.MirrorDirectory = work, filepath.Join(dir, reportName), b.config.MirrorDirectory
	data, err := json.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("encode job file: %w", err)
	}
	jobFile := filepath.Join(dir, jobFileName)
	if err := os.WriteFile(jobFile, data, secretMode); err != nil {
		return nil, &backend.StartError{Reason: reasonSpace, Err: err}
	}
	crashLog, err := os.OpenFile(filepath.Join(dir, crashLogName), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, secretMode)
	if err != nil {
		return nil, &backend.StartError{Reason: reasonSpace, Err: err}
	}
	defer crashLog.Close() // the executor has its own
	// Not bound to any context: the job outlives the call, and the agent.
	cmd := exec.Command(executor, "run", "--job-file", jobFile) //nolint:noctx // see above
	cmd.Dir = work
	cmd.Env = jobEnvironment(b.env, spec.Env, dir)
	// A file, not a pipe: a pipe would break when the agent goes away.
	cmd.Stdout, cmd.Stderr = crashLog, crashLog
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	w := newWorkload(dir, b.config.Log)
	if err := cmd.Start(); err != nil {
		return nil, &backend.StartError{Reason: reasonExec, Err: fmt.Errorf("start the executor: %w", err)}
	}
	pid := cmd.Process.Pid
	w.child, w.process = cmd, cmd.Process
	w.leader = leader{
		PID: pid, Start: startOf(pid), Boot: host.BootID(), Program: executor,
		Deployment: spec.Job.DeploymentID, Grace: grace(spec.Job),
	}
	if err := writeLeader(dir, w.leader); err != nil {
		b.config.Log.Warn("the executor's process is not noted; the next agent has to search for it", zap.String("directory", dir), zap.Error(err))
	}
	go w.own(nil)
	return w, nil
}
