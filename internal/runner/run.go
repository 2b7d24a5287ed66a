package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/ledger"
	"github.com/longshore-run/longshore/internal/logstream"
)

// run is one job on its way. It is used by the goroutine that Handle was called
// in, except where noted.
type run struct {
	o       *Options
	log     *zap.Logger
	work    api.AgentWorkflowDefinition
	job     Job
	entry   ledger.Entry // as the ledger has it
	resumed bool         // another process has begun it

	streams  *logstream.Streams
	workload backend.Workload // nil until started
	def      api.JobDefinition
	// delivered says that the executor has delivered its whole log.
	delivered bool
	cached    api.CacheOutcomes // of the job that this process saw end
	ended     bool              // end was called
	unsaid    bool              // the service does not know the end yet
	said      bool              // the last words are in the stream of the agent
}

func newRun(o *Options, log *zap.Logger, entry ledger.Entry) *run {
	return &run{o: o, log: log, work: entry.Work, entry: entry}
}

// open readies what speaks to the service for the job.
func (j *run) open() {
	j.job = j.o.NewJob(j.work.JobID, j.work.JobToken)
	j.streams = logstream.New(logstream.Options{
		Sink:     j.job,
		Secrets:  j.secrets(),
		SpoolDir: j.ownSpool(),
		Log:      j.log,
	})
}

// run carries the job to its end and returns its outcome.
func (j *run) run(ctx context.Context) string {
	j.open()
	// A job that the next process could not know of is not begun.
	if err := j.o.Ledger.Put(j.entry); err != nil {
		j.log.Error("job not begun", zap.Error(err))
		return j.end(context.WithoutCancel(ctx), verdict{
			outcome: outcomeStartFailed, failed: true, step: 0,
			line: fmt.Sprintf("The agent cannot note that it has claimed the job (%v), so it did not begin it. Nothing was changed.", err),
		})
	}

	// jobCtx ends when the job is to end early; its cause says why.
	jobCtx, cancel := context.WithCancelCause(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel(nil)
	helpers.Go(func() { j.watch(jobCtx, cancel) })

	prepareCtx, prepared := context.WithTimeoutCause(jobCtx, j.o.PrepareTimeout, errPrepareLimit)
	helpers.Go(func() { j.beat(prepareCtx, cancel) })
	v, ok := j.prepare(prepareCtx)
	prepared() // from here on the executor says that the job lives
	if !ok {
		return j.end(context.WithoutCancel(ctx), v)
	}
	setup := time.Since(j.entry.Claimed)
	j.o.Metrics.setup.Observe(setup.Seconds())
	j.log.Info("job started", zap.String("workload", j.workload.ID()), zap.Duration("setup", setup))

	return j.end(context.WithoutCancel(ctx), j.supervise(ctx, jobCtx))
}

// prepare gets the executor started. When it does not, ok is false and the
// verdict says what became of the job.
func (j *run) prepare(ctx context.Context) (v verdict, ok bool) {
	setup := j.streams.Step(0)
	def, err := j.job.Definition(ctx)
	if err != nil {
		return j.unprepared(ctx, err, "The job definition could not be fetched", outcomeStartFailed), false
	}
	j.def = def
	j.streams.AddSecret(j.secrets()...)
	if err := def.Validate(); err != nil {
		return verdict{
			outcome: outcomeBadDefinition, failed: true, step: 0,
			line: "The job definition cannot be run:\n" + indent(err.Error()),
		}, false
	}
	if err := j.job.Step(ctx, 0, api.StepRunning); err != nil {
		if conflict(err) || client.Gone(err) || ctx.Err() != nil {
			return j.unprepared(ctx, err, "The job could not be begun", outcomeStartFailed), false
		}
		// The service is away. The executor reports by itself and keeps trying.
		j.log.Warn("setup could not be reported", zap.Error(err))
	}
	spec := j.spec()
	spec.Job.Cache = j.cache(ctx, setup)
	workload, err := j.o.Backend.Start(ctx, spec, setup)
	if err != nil {
		return j.unprepared(ctx, err, "The job could not be started", outcomeStartFailed), false
	}
	j.workload = workload
	j.noteStart()
	return verdict{}, true
}

// noteStart remembers that the executor was started. Where that cannot be
// written, the backend knows, too.
func (j *run) noteStart() {
	j.entry.Started, j.entry.Workload = time.Now(), j.workload.ID()
	j.entry.Operation, j.entry.Timeout = j.def.Operation, j.def.Timeout
	if err := j.o.Ledger.Put(j.entry); err != nil {
		j.log.Warn("the start of the job is not noted; the next agent will ask the backend for it", zap.Error(err))
	}
}

// unprepared says what an error before the start of the executor means.
func (j *run) unprepared(ctx context.Context, err error, what, outcome string) verdict {
	j.log.Warn("job not started", zap.Error(err))
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errEnded), cause == nil && (conflict(err) || client.Gone(err)):
		return verdict{outcome: outcomeNotOurs, failed: true, step: noStep}
	case errors.Is(cause, errPrepareLimit):
		return verdict{
			outcome: outcome, failed: true, step: 0,
			line: fmt.Sprintf("%s within %v: %v", what, j.o.PrepareTimeout, err),
		}
	case errors.Is(cause, errCancelled):
		return verdict{outcome: outcomeCancelled, failed: true, step: 0, line: "Cancelled before any step had started. Nothing was changed."}
	case cause != nil:
		return verdict{outcome: outcomeCancelled, failed: true, step: 0, line: "The agent was stopped before any step had started. Nothing was changed; deploy again."}
	}
	return verdict{outcome: outcome, failed: true, step: 0, line: fmt.Sprintf("%s: %v", what, err)}
}

// cache returns how the job reaches the agent's own dependency cache, nil when
// the agent has none. That it cannot be reached fails no job.
func (j *run) cache(ctx context.Context, setup io.Writer) *api.JobCache {
	if j.o.Cache == nil {
		return nil
	}
	access, err := j.o.Cache.Access(ctx, j.work.JobID, j.def.StackIdentity())
	if err != nil {
		j.log.Warn("job goes on without the dependency cache", zap.Error(err))
		fmt.Fprintf(setup, "the agent's dependency cache cannot be used: %v\n", err)
		return &api.JobCache{Off: err.Error()}
	}
	j.streams.AddSecret(access.Token)
	return &access
}

// spec is what the backend is to start, but for the cache.
func (j *run) spec() backend.Spec {
	spec := backend.Spec{
		Pool: j.o.PoolName, Agent: j.o.AgentName,
		Job: api.JobFile{
			ServiceURL:        j.o.ServiceURL,
			JobID:             j.work.JobID,
			DeploymentID:      j.work.Deployment(),
			JobToken:          j.work.JobToken,
			OIDCToken:         j.work.OIDCToken,
			Definition:        j.def,
			Env:               maps.Clone(j.o.Env),
			HeartbeatInterval: api.Duration(j.o.Heartbeat),
			Timeout:           api.Duration(j.o.JobTimeout),
			StepTimeout:       api.Duration(j.o.StepTimeout),
			IdleTimeout:       api.Duration(j.o.IdleTimeout),
			ChangeGrace:       api.Duration(j.o.ChangeGrace),
			QuickGrace:        api.Duration(j.o.QuickGrace),
			DeliverTimeout:    api.Duration(j.o.DeliverTimeout),
		},
		Image:  j.image(),
		Limits: j.o.Limits,
	}
	if j.o.Keeper != nil {
		j.o.Keeper.Give(&spec.Job)
	}
	return spec
}

// image chooses what the job runs in. The credentials of a definition are for
// the image it names, and go nowhere else.
func (j *run) image() api.DockerImage {
	switch {
	case j.o.OverrideImage != "":
		return api.DockerImage{Reference: j.o.OverrideImage}
	case j.def.Image.IsDefault:
		return api.DockerImage{Reference: j.o.DefaultImage}
	}
	return *j.def.Image
}

// secrets returns what must never show in a line of the agent's.
func (j *run) secrets() []string {
	secrets := []string{j.work.JobToken, j.work.OIDCToken}
	for _, name := range j.def.SecretEnv {
		secrets = append(secrets, j.def.Env[name])
	}
	if j.def.Image != nil && j.def.Image.Credentials != nil {
		secrets = append(secrets, j.def.Image.Credentials.Password.Value)
	}
	return without(secrets, "")
}

func (j *run) ownSpool() string {
	if j.spool() == "" {
		return ""
	}
	return filepath.Join(j.spool(), ownSpool)
}

// spool is the directory of the job's lines that wait, "" for none.
func (j *run) spool() string {
	if j.o.SpoolDirectory == "" {
		return ""
	}
	return filepath.Join(j.o.SpoolDirectory, filepath.Base(filepath.Clean("/"+j.work.JobID)))
}

// ladder is how long a job may take to end once it was asked to: the
// executor's own ladder of signals, and the delivery of its last words.
func (j *run) ladder() time.Duration {
	grace := j.o.QuickGrace
	if j.def.Operation.Changes() {
		grace = j.o.ChangeGrace
	}
	return grace + killGrace + j.o.DeliverTimeout + slack
}

// limit is the time after which the job has outlived its own time limit and the
// ladder that follows: then the executor has failed to end it. 0 is none.
func (j *run) limit() time.Duration {
	limit := j.def.Timeout.Std()
	if t := j.o.JobTimeout; t > 0 && (limit == 0 || t < limit) {
		limit = t
	}
	if limit == 0 {
		return 0
	}
	return limit + j.ladder()
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}

func without(list []string, what string) []string {
	kept := list[:0]
	for _, item := range list {
		if item != what {
			kept = append(kept, item)
		}
	}
	return kept
}

// conflict reports whether the service refuses a move that may not be made.
func conflict(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == 409
}
