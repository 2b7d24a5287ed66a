// Package runner carries one claimed job to its end, on the agent's side: it
// fetches the definition, has a backend start the executor, watches for a
// cancel, enforces the last time limit, says what the executor no longer can,
// and cleans up. What a job does inside is the executor's business, and where
// it lives is the backend's: a runner knows neither steps nor Docker.
//
// Who says that the job lives: the agent sends heartbeats from the claim until
// the executor has started, and again while it says its last words. In between
// the executor sends its own, so that a job whose executor hangs is found out.
//
// The main type is Runner.
package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/host"
	"github.com/longshore-run/longshore/internal/ledger"
	"github.com/longshore-run/longshore/internal/logstream"
	"github.com/longshore-run/longshore/internal/undelivered"
)

// Job makes the calls that a job token allows. *client.Job is one.
type Job interface {
	logstream.Sink
	Definition(ctx context.Context) (api.JobDefinition, error)
	Step(ctx context.Context, index int, status api.StepStatus) error
	Heartbeat(ctx context.Context) error
}

// Pool makes the one call of a runner that needs the pool token. *client.Pool
// is one.
type Pool interface {
	// DeploymentStatus may be held by the service for up to wait; held reports
	// whether it was.
	DeploymentStatus(ctx context.Context, id string, wait time.Duration) (status api.Status, held bool, err error)
}

// Cache is a dependency cache that the agent serves. *jobcache.Server is one.
type Cache interface {
	// Access returns what a job needs to use it, for a stack given as
	// organization/project/stack. The job goes on without it after an error.
	Access(ctx context.Context, jobID, stack string) (api.JobCache, error)
}

// Keeper keeps, on the agent's host, what jobs leave for those after them. Its
// methods may be called concurrently.
type Keeper interface {
	// Give completes the job file of a job that is about to start.
	Give(job *api.JobFile)
	// Take looks through the directory that a job left. Whatever is in it, the
	// job may have written it.
	Take(ctx context.Context, dir string, log *zap.Logger)
}

// Options configure a Runner. Backend, Pool, NewJob, ServiceURL and
// DefaultImage are needed; the zero value of the others is a default.
type Options struct {
	Backend backend.Backend
	Pool    Pool
	NewJob  func(id, token string) Job

	AgentName, PoolName string // for labels
	ServiceURL          string // as jobs reach it
	DirectURL           string // the same, as this agent does
	SpoolDirectory      string // for log lines that wait for the service
	// Undelivered keeps lines that the service did not take before the end of a
	// job. Nil: they are lost with it.
	Undelivered *undelivered.Store
	// Keeper keeps what jobs leave for later ones. Nil: nobody does.
	Keeper Keeper
	// Ledger remembers jobs for the next process of this agent. Nil: a job is
	// lost from sight with the process.
	Ledger *ledger.Ledger

	// Cache lets jobs use a dependency cache of the agent's own. Nil: they use the
	// service's.
	Cache Cache

	DefaultImage  string            // for definitions that ask for the runner's default
	OverrideImage string            // for all definitions, when not empty
	Env           map[string]string // added to every step's environment, where it wins
	Limits        backend.Limits
	KeepFailed    bool // what a failed job ran in is not removed

	StatusWait     time.Duration // how long the service is asked to hold a question for a cancel; default 30s
	StatusInterval time.Duration // between such questions, where the service does not hold them; default 30s
	Heartbeat      time.Duration // between two heartbeats, ours and the executor's; default 30s
	JobTimeout     time.Duration // of the whole job; 0: the definition's
	StepTimeout    time.Duration // of each step; 0: the definition's
	IdleTimeout    time.Duration // how long a step may print nothing; 0: no limit
	ChangeGrace    time.Duration // SIGINT to SIGTERM for operations that change things; default 10m
	QuickGrace     time.Duration // the same for the others; default 30s
	DeliverTimeout time.Duration // for the last log lines and statuses; default 10m
	PrepareTimeout time.Duration // from the claim to a started executor; default 30m

	// Active is called whenever the service has answered, for health.
	Active  func()
	Log     *zap.Logger
	Metrics *Metrics
}

// Times that are nobody's choice.
const (
	killGrace     = 10 * time.Second       // SIGTERM to SIGKILL, the last rung of the executor's ladder
	slack         = 30 * time.Second       // for a ladder to be climbed on a busy machine
	settleTime    = 500 * time.Millisecond // for an executor that failed by itself to end before it is told to
	removeTimeout = 2 * time.Minute
	removePause   = 2 * time.Second  // between two attempts
	removeRetries = 20 * time.Second // about as long as a container engine takes to restart
)

// Runner runs claimed jobs, any number of them at the same time.
type Runner struct {
	o    Options
	seen seen
	hand inHand
}

// New returns a Runner.
func New(o Options) *Runner {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.StatusWait, 30 * time.Second},
		{&o.StatusInterval, 30 * time.Second},
		{&o.Heartbeat, 30 * time.Second},
		{&o.ChangeGrace, 10 * time.Minute},
		{&o.QuickGrace, 30 * time.Second},
		{&o.DeliverTimeout, 10 * time.Minute},
		{&o.PrepareTimeout, 30 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Active == nil {
		o.Active = func() {}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	return &Runner{o: o}
}

// Handle runs one claimed job to its end. Canceling ctx cancels the job by the
// ladder of signals; Handle still returns only when the job has ended and has
// been reported. A deployment that this Runner has seen before is dropped:
// deployments are at-most-once. A panic ends in a failed job, never in a failed
// agent.
func (r *Runner) Handle(ctx context.Context, work api.AgentWorkflowDefinition) {
	log := r.o.Log.With(zap.String("deployment_id", work.Deployment()), zap.String("job_id", work.JobID))
	if !r.seen.add(work.Deployment()) {
		log.Error("the service handed out a deployment twice; the second claim is dropped")
		r.o.Metrics.jobs.WithLabelValues(outcomeDuplicate).Inc()
		return
	}
	log.Info("job claimed")
	j := newRun(&r.o, log, ledger.Entry{Work: work, Claimed: time.Now(), BootID: host.BootID()})
	r.carry(ctx, j, j.run)
}

// InHand reports whether a job is one that this Runner carries to its end now.
func (r *Runner) InHand(jobID string) bool { return r.hand.has(jobID) }

// carry has how bring a job to its end, and counts it.
func (r *Runner) carry(ctx context.Context, j *run, how func(context.Context) string) {
	r.hand.add(j.work.JobID)
	defer r.hand.remove(j.work.JobID)
	outcome := r.protected(ctx, j, how)
	took := time.Since(j.entry.Claimed)
	r.o.Metrics.jobs.WithLabelValues(outcome).Inc()
	r.o.Metrics.jobSeconds.Observe(took.Seconds())
	j.log.Info("job ended", zap.String("outcome", outcome), zap.Duration("took", took))
}

// protected runs j and turns a panic into a failed job.
func (r *Runner) protected(ctx context.Context, j *run, how func(context.Context) string) (outcome string) {
	defer func() {
		reason := recover()
		if reason == nil {
			return
		}
		outcome = outcomeInternalError
		j.log.Error("a job ran into a bug of the agent", zap.String("panic", fmt.Sprint(reason)), zap.ByteString("stack", debug.Stack()))
		j.end(context.WithoutCancel(ctx), verdict{
			outcome: outcome, failed: true, step: unknownStep,
			line: "Internal error of the agent: this is a bug. The agent's log says more.",
		})
	}()
	return how(ctx)
}

// Why a job is ended before it ends by itself.
var (
	errCancelled    = errors.New("the deployment was cancelled")
	errEnded        = errors.New("the service has ended the job")
	errOverdue      = errors.New("the job did not end in time")
	errPrepareLimit = errors.New("preparing the job took too long")
)
