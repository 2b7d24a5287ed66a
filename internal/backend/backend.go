// Package backend is the seam between a runner and the place where jobs live:
// a Docker engine, a process on the agent's host, later a Kubernetes cluster.
// It holds the contract; its children docker, process and fake implement it,
// and backendtest is the suite that each of them passes.
package backend

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Backend starts jobs. One Backend serves all slots of an agent, so every
// method may be called concurrently.
//
// The order of calls for one job is Start, then Wait and Stop in any number and
// at any time, then Remove. What must hold:
//
//   - Start either returns a live Workload or an error; after an error nothing
//     of the job is left behind, whatever stage it had reached, and also when
//     ctx ended halfway. Canceling ctx makes Start return promptly.
//   - Canceling the ctx of Start after it returned has no effect on the job: a
//     job outlives the agent that started it.
//   - The executor is the workload's first process. It receives its job file by
//     a way that shows in no process list, environment, or description of the
//     workload, and nothing of the agent's own environment. When it ends, for
//     whatever reason, everything that it left running ends, too.
//   - A job belongs to the agent that started it, which outlives its processes:
//     a Backend of a later process of the same agent lists the job and takes it
//     over. Which Backends are of the same agent is for each kind to say.
//   - Two jobs do not share a directory. A backend with a kernel's help (a
//     container) keeps them from reading each other's files; process cannot,
//     because its jobs run as one user.
//
// What a backend expects of the executor that it starts as
// "longshore-executor run --job-file FILE":
//
//   - FILE may be "-": the job file then comes on standard input, ends with it,
//     and there is nothing to remove.
//   - It makes the directory of JobFile.ReportPath, with mode 0700, when there is
//     none, keeps its report there, and puts nothing anywhere else but in
//     JobFile.Directory.
//   - The last line that it prints on standard output is its final report, as one
//     line of JSON. Nothing else goes there. A backend may read it from there
//     instead of from the file.
type Backend interface {
	// Check reports whether a job could be started now. Its error says what is
	// wrong and what to do about it. An agent polls only while Check is nil.
	Check(ctx context.Context) error
	// Start starts the job. It writes what it does, one line at a time and for
	// the job's owner to read, to setup: these become the log of step 0.
	Start(ctx context.Context, spec Spec, setup io.Writer) (Workload, error)
	// Left lists the jobs of this agent of which there is anything, those that
	// this Backend started itself included. An error means that nothing can be
	// said; it is no answer that there is none.
	Left(ctx context.Context) ([]Remnant, error)
	// Adopt returns the workload of a job that Left lists. It is as good as the
	// one that Start returned, but that some backends cannot learn the exit code
	// of a process that they did not start. The error is ErrGone for a job of
	// which there is nothing (any more).
	Adopt(ctx context.Context, jobID string) (Workload, error)
	// Sweep removes what carries the labels of Longshore and is of use to
	// nobody: what agents left that are gone for good, helpers, caches beyond
	// their budget. It touches nothing without these labels, no job of this
	// agent, and no job that runs. It returns what it removed, for the log.
	Sweep(ctx context.Context) (removed []string, err error)
}

// Remnant is what there is of a job, for an agent that does not remember it.
type Remnant struct {
	JobID, DeploymentID string // DeploymentID may be empty
	// Started is false for a job that was made and not started: nothing of it
	// has run, or will, and all that is left to do is to remove it.
	Started bool
}

// Workload is one started job. Its methods may be called concurrently.
type Workload interface {
	// ID is a short name for logs and messages: a container id, a process id.
	ID() string
	// Wait blocks until the workload has ended and returns how. It may be
	// called again and then answers the same. An error means that ctx ended, or
	// that the backend could not find out (ErrGone when the workload
	// disappeared without a trace).
	Wait(ctx context.Context) (Exit, error)
	// Stop asks the executor once, with SIGTERM, to cancel its job by the
	// ladder, and kills everything in the workload when it has not ended after
	// grace. It returns when the workload has ended. A second call joins the
	// first and does not ask again; of several graces the one that ends first
	// counts. When ctx ends, Stop returns and kills nothing. Stopping what has
	// ended is no error.
	Stop(ctx context.Context, grace time.Duration) error
	// Spool returns a directory with the log lines that the executor could not
	// deliver (JobFile.SpoolDirectory, or beside the report): the executor's own
	// where that is on the agent's host, else a copy in dir, which exists. It is
	// "" when there are none. Whatever is in the files, the job may have written
	// it. Call it once the workload has ended, and before Remove.
	Spool(ctx context.Context, dir string) (string, error)
	// Kept returns a directory with what the job leaves for its agent to keep
	// (api.KeptName beside the report), in the manner of Spool. What is in it is
	// for the caller to look at; links in it lead anywhere.
	Kept(ctx context.Context, dir string) (string, error)
	// Remove frees everything the workload holds, killing it first if it still
	// runs. It is idempotent.
	Remove(ctx context.Context) error
}

// ErrGone is returned by Wait for a workload that was removed by somebody else.
var ErrGone = errors.New("removed outside of the agent")

// StartError is an error of Start that the job's owner can do something about,
// such as an image that does not exist. Its text is for the job's log.
type StartError struct {
	Reason string // image, limits, network, user, executor, workspace: few values, for metrics
	Err    error
}

// Error returns the text of the cause.
func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// Spec is one job to start.
type Spec struct {
	// Pool and Agent name who starts it; with the ids in Job they become the
	// workload's labels.
	Pool, Agent string
	// Job is handed to the executor. The backend fills in Directory, ReportPath
	// and MirrorDirectory, which depend on where it puts things.
	Job api.JobFile
	// Image is what the job runs in, for backends that have images: a reference
	// and perhaps credentials. Never empty.
	Image api.DockerImage
	// Limits bound what the job may use. Zero fields are unlimited.
	Limits Limits
	// Env is the environment of the executor itself. It holds no secrets: in
	// some backends everybody on the host can read it.
	Env map[string]string
}

// Limits bound the resources of one job.
type Limits struct {
	CPUs        float64 // cores
	MemoryBytes int64
	Pids        int64
}

// Exit is how a workload ended.
type Exit struct {
	// Code is the executor's exit code, or 128 plus the signal that killed it;
	// CodeUnknown when nobody could find out.
	Code int
	// OutOfMemory is set when the memory limit, or the host, killed a process
	// of the workload, whatever Code says.
	OutOfMemory bool
	// Reason is the backend's own words for an end that Code does not explain,
	// such as "killed by SIGKILL". May be empty.
	Reason string
	// Report is what the executor said last, nil when it said nothing readable.
	Report *api.Report
}

// CodeUnknown is the Exit.Code of an executor whose end nobody saw: its agent
// was not there, and a process tells its exit code to its parent alone.
const CodeUnknown = -1

// ExecutorSource returns the path, on the agent's host, of an executor binary
// for linux on the given architecture ("amd64", "arm64").
type ExecutorSource func(ctx context.Context, arch string) (string, error)

// Labels on everything that an agent starts.
const (
	LabelPool       = "run.longshore.pool"
	LabelJob        = "run.longshore.job"
	LabelDeployment = "run.longshore.deployment"
	LabelAgent      = "run.longshore.agent"
	// LabelOwner names the state directory of the agent, by a random id. Agents
	// of one name, on one engine, differ in it, and each keeps to its own.
	LabelOwner = "run.longshore.owner"
)
