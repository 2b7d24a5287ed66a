package control

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// dissolveClaims takes back the claims of which nothing was heard for the claim
// timeout: the answer to the poll never came to an agent, or to one that died
// of it. That is safe because nothing can have run. The recipe is given to the
// job token alone, and confirms the claim in the transaction before the answer;
// that transaction and the one that dissolves exclude each other.
func (s *Service) dissolveClaims(ctx context.Context) error {
	unheard, err := s.silent(ctx, &s.claims, false)
	if err != nil {
		return err
	}
	for _, j := range unheard {
		dissolved, err := s.dissolve(ctx, j.ID)
		if err != nil {
			return fmt.Errorf("dissolve claim of job %s: %w", j.ID, err)
		}
		if dissolved {
			s.metrics.dropped.Inc()
			s.log.Warn("nothing was heard of the runner of a claim, so its deployment waits again", zap.String("job_id", j.ID),
				zap.String("deployment_id", j.DeploymentID), zap.Time("claimed", j.Claimed), zap.String("agent", j.Agent.Hostname))
		}
	}
	return nil
}

// dissolve ends one job that is not confirmed, and its token with it, and puts
// the deployment back to where it was in the queue, or skips it when a cancel
// was asked for meanwhile. It returns false when the job was confirmed.
func (s *Service) dissolve(ctx context.Context, jobID string) (dissolved bool, err error) {
	err = s.update(ctx, func(tx Tx, after *effects) error {
		j, d, err := s.theJob(tx, Principal{}, jobID)
		if err != nil || !j.Ended.IsZero() || !j.Confirmed.IsZero() || !s.claims.over(j.LastBeat, tx.Now()) {
			return err
		}
		dissolved = true
		now := tx.Now()
		j.Status, j.Lost, j.Ended, j.Modified = api.StatusFailed, true, now, now
		if err := tx.SetJob(j); err != nil {
			return err
		}
		if !d.CancelRequested.IsZero() {
			return after.end(tx, d, api.StatusSkipped)
		}
		if err := tx.SetStatus(d.ID, d.Status, api.StatusNotStarted); err != nil {
			return err
		}
		after.ring = append(after.ring, d.ID)
		d.Status = api.StatusNotStarted
		return after.queued(tx, d)
	})
	return dissolved && err == nil, err
}
