package runner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/backend"
)

// tidyDelivery bounds how long one Tidy tries to tell the service of one end.
const tidyDelivery = time.Minute

// Tidy sees to what jobs left open: a log that the service has not taken, an end
// that it could not be told, something that could not be removed, a spool that nobody reads. It touches
// nothing of a job that is in hand, and of another agent only what its backend
// says is nobody's. Call it from time to time, one call after the other, once
// Recover has succeeded.
func (r *Runner) Tidy(ctx context.Context) {
	r.pushKept(ctx)
	remembered := r.retellEnds(ctx)
	if left, err := r.o.Backend.Left(ctx); err != nil {
		r.o.Log.Warn("cannot look for what jobs left behind", zap.Error(err))
	} else if !r.o.KeepFailed {
		r.removeLeft(ctx, left, remembered)
	}
	r.removeSpools(remembered)
	removed, err := r.o.Backend.Sweep(ctx)
	if err != nil && ctx.Err() == nil {
		r.o.Log.Warn("sweeping did not succeed", zap.Error(err))
	}
	for _, what := range removed {
		r.o.Metrics.swept.Inc()
		r.o.Log.Info("swept", zap.String("what", what))
	}
}

// retellEnds tells the service the ends that it does not know, and returns the
// jobs that are remembered.
func (r *Runner) retellEnds(ctx context.Context) map[string]bool {
	entries, err := r.o.Ledger.All()
	if err != nil {
		r.o.Log.Error("a job is forgotten", zap.Error(err))
	}
	remembered := map[string]bool{}
	for _, e := range entries {
		remembered[e.Work.JobID] = true
		if e.End == nil || r.hand.has(e.Work.JobID) || ctx.Err() != nil {
			continue
		}
		o := r.o
		o.DeliverTimeout = tidyDelivery
		j := newRun(&o, r.o.Log.With(zap.String("deployment_id", e.Work.Deployment()), zap.String("job_id", e.Work.JobID)), e)
		j.resumed = true
		j.open()
		if w, err := r.o.Backend.Adopt(ctx, e.Work.JobID); err == nil { // its log was not safe
			j.workload = w
		}
		j.end(ctx, verdictOf(*e.End))
	}
	return remembered
}

// removeLeft removes what there is of jobs that nobody sees to.
func (r *Runner) removeLeft(ctx context.Context, left []backend.Remnant, remembered map[string]bool) {
	for _, remnant := range left {
		if remembered[remnant.JobID] || r.hand.has(remnant.JobID) || ctx.Err() != nil {
			continue
		}
		w, err := r.o.Backend.Adopt(ctx, remnant.JobID)
		if errors.Is(err, backend.ErrGone) {
			continue // removed by the one who had it in hand a moment ago
		}
		if err == nil {
			removeCtx, cancel := context.WithTimeout(ctx, removeTimeout)
			err = w.Remove(removeCtx)
			cancel()
		}
		if err != nil {
			r.o.Log.Warn("what a job left behind cannot be removed; will try again", zap.String("job_id", remnant.JobID), zap.Error(err))
			continue
		}
		r.o.Metrics.swept.Inc()
		r.o.Log.Info("removed what a job had left behind", zap.String("job_id", remnant.JobID))
	}
}

// removeSpools removes the agent's own log spools of jobs that are over: what a
// process that was killed had in them cannot be told apart any more.
func (r *Runner) removeSpools(remembered map[string]bool) {
	if r.o.SpoolDirectory == "" {
		return
	}
	entries, err := os.ReadDir(r.o.SpoolDirectory)
	if err != nil {
		return // there has been none yet
	}
	for _, e := range entries {
		if !remembered[e.Name()] && !r.hand.has(e.Name()) {
			_ = os.RemoveAll(filepath.Join(r.o.SpoolDirectory, e.Name()))
		}
	}
}
