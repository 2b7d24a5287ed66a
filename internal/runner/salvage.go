package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/undelivered"
)

// Names below a job's directory for log lines that wait, and for what it left for
// others.
const (
	ownSpool  = "agent"    // the agent's own lines
	jobsSpool = "executor" // a copy of what the executor left
	keptCopy  = "kept"
)

// record is what is needed to deliver lines of the job later.
func (j *run) record() undelivered.Record {
	return undelivered.Record{
		JobID: j.work.JobID, JobToken: j.work.JobToken, DeploymentID: j.work.Deployment(), ServiceURL: j.o.DirectURL,
	}
}

// salvage puts the lines that the executor could not deliver where they outlive
// what the job ran in. After an error they are still only there.
func (j *run) salvage(ctx context.Context) error {
	if j.workload == nil || j.delivered || j.o.Undelivered == nil || j.spool() == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	copied := filepath.Join(j.spool(), jobsSpool)
	if err := os.MkdirAll(copied, 0o700); err != nil {
		return fmt.Errorf("keep the job's log: %w", err)
	}
	defer func() { _ = os.RemoveAll(copied) }()
	dir, err := j.workload.Spool(ctx, copied)
	if errors.Is(err, backend.ErrGone) || err == nil && dir == "" {
		return nil
	}
	if err == nil {
		_, err = j.o.Undelivered.Put(j.record(), dir)
	}
	if err != nil {
		return fmt.Errorf("keep the job's log: %w", err)
	}
	return nil
}

// takeKept hands what the job left for others to whoever keeps it. What cannot be
// had is missed by nobody.
func (j *run) takeKept(ctx context.Context) {
	if j.workload == nil || j.o.Keeper == nil || j.spool() == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	copied := filepath.Join(j.spool(), keptCopy)
	if err := os.MkdirAll(copied, 0o700); err != nil {
		j.log.Warn("what the job left for others is lost", zap.Error(err))
		return
	}
	defer func() { _ = os.RemoveAll(copied) }()
	dir, err := j.workload.Kept(ctx, copied)
	switch {
	case err != nil && !errors.Is(err, backend.ErrGone):
		j.log.Warn("what the job left for others is lost", zap.Error(err))
	case err == nil && dir != "":
		j.o.Keeper.Take(ctx, dir, j.log)
	}
}

// keepOwn does the same for the lines of the agent itself, once their stream is
// closed. The last words that are among them are not said again.
func (j *run) keepOwn() {
	if j.o.Undelivered == nil || j.spool() == "" {
		return
	}
	kept, err := j.o.Undelivered.Put(j.record(), filepath.Join(j.spool(), ownSpool))
	if err != nil {
		j.log.Warn("the agent's own lines of the job's log are lost", zap.Error(err))
	}
	if !kept || !j.said || j.entry.End == nil {
		return
	}
	j.entry.End.Line = ""
	if err := j.o.Ledger.Put(j.entry); err != nil {
		j.log.Warn("the last words of the job may show twice in its log", zap.Error(err))
	}
}

// push delivers what is kept of the job's log.
func (j *run) push(ctx context.Context) {
	if j.o.Undelivered == nil {
		return
	}
	jobs, err := j.o.Undelivered.List()
	if err != nil {
		j.log.Warn("some logs cannot be delivered", zap.Error(err))
	}
	for _, kept := range jobs {
		if kept.JobID == j.work.JobID {
			pushOne(ctx, kept, j.job, j.log)
		}
	}
}

// pushOne delivers the log of one job, and says what came of it.
func pushOne(ctx context.Context, kept undelivered.Job, job Job, log *zap.Logger) {
	res, err := kept.Push(ctx, job, log)
	switch {
	case err == nil && res.Delivered > 0:
		log.Info("log delivered after the end of the job", zap.Int64("lines", res.Delivered))
	case errors.Is(err, undelivered.ErrRefused):
		log.Warn("the service takes no more of this job's log", zap.Int64("delivered", res.Delivered), zap.Int64("lost", res.Lost))
	case err != nil && !errors.Is(err, undelivered.ErrBusy):
		log.Warn("part of the job's log waits for the service", zap.Int64("lines", res.Left), zap.Error(err))
	}
}

// pushKept delivers the logs of jobs that are over.
func (r *Runner) pushKept(ctx context.Context) {
	if r.o.Undelivered == nil {
		return
	}
	if err := r.o.Undelivered.Sweep(); err != nil {
		r.o.Log.Warn("what was kept halfway stays behind", zap.Error(err))
	}
	jobs, err := r.o.Undelivered.List()
	if err != nil {
		r.o.Log.Warn("some logs cannot be delivered", zap.Error(err))
	}
	for _, kept := range jobs {
		if r.hand.has(kept.JobID) || ctx.Err() != nil {
			continue
		}
		log := r.o.Log.With(zap.String("deployment_id", kept.DeploymentID), zap.String("job_id", kept.JobID))
		one, cancel := context.WithTimeout(ctx, tidyDelivery)
		pushOne(one, kept, r.o.NewJob(kept.JobID, kept.JobToken), log)
		cancel()
	}
}
