package control

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// reap fails the jobs that gave no sign of life for the heartbeat timeout.
// While this process is younger than that it fails none: the silence may have
// been its own.
func (s *Service) reap(ctx context.Context) error {
	s.presence.forget(s.now().Add(-AgentOnline))
	silent, err := s.silent(ctx, &s.beats, true)
	if err != nil {
		return err
	}
	for _, j := range silent {
		lost, err := s.lose(ctx, j.ID)
		if err != nil {
			return fmt.Errorf("end silent job %s: %w", j.ID, err)
		}
		if lost {
			s.metrics.silent.Inc()
			s.log.Warn("a job was silent for too long and is failed", zap.String("job_id", j.ID),
				zap.String("deployment_id", j.DeploymentID), zap.Time("last_sign_of_life", j.LastBeat))
		}
	}
	return s.store.Update(ctx, func(tx Tx) error { return tx.ForgetAgents(tx.Now().Add(-agentForget)) })
}

// silent returns the jobs whose lease is over, none while silence does not
// count.
func (s *Service) silent(ctx context.Context, l *lease, confirmed bool) (jobs []Job, err error) {
	now := s.now()
	counts, set := l.look(now, s.elapsed())
	if set != 0 {
		s.log.Warn("the clock was set, so nobody counts as silent for a while",
			zap.Duration("by", set), zap.Duration("while", l.term))
	}
	if !counts {
		return nil, nil
	}
	err = s.store.View(ctx, func(tx Tx) (err error) {
		jobs, err = tx.SilentJobs(confirmed, now.Add(-l.term), now.Add(l.term))
		return err
	})
	return jobs, err
}

// lose ends one silent job and says why in its log. It returns false when the
// job came back or ended meanwhile.
func (s *Service) lose(ctx context.Context, jobID string) (lost bool, err error) {
	err = s.update(ctx, func(tx Tx, after *effects) error {
		j, d, err := s.theJob(tx, Principal{}, jobID)
		if err != nil || !j.Ended.IsZero() || !s.beats.over(j.LastBeat, tx.Now()) {
			return err
		}
		lost = true
		step := currentStep(j)
		text := fmt.Sprintf("Longshore: the runner of this job has given no sign of life for %s (last one %s), so the deployment is failed. "+
			"Whatever it was doing may be half done: look at the agent's log on %s, and run \"pulumi cancel\" and \"pulumi refresh\" if the stack is locked or out of step.\n",
			s.beats.term, j.LastBeat.Format(time.RFC3339), or(j.Agent.Hostname, "its host"))
		err = tx.AppendLog(j.ID, step, LogChunk{
			First: j.Steps[step].Lines, Count: 1,
			Payload: s.codec.Encode([]api.LogLine{{Time: tx.Now(), Text: text}}),
		})
		if err != nil {
			return err
		}
		now := tx.Now()
		st := j.Steps[step]
		st.Status, st.Modified = api.StepFailed, now
		if st.Started.IsZero() {
			st.Started = now
		}
		if err := tx.SetStep(j.ID, step, st); err != nil {
			return err
		}
		j.Status, j.Lost, j.Ended, j.Modified = api.StatusFailed, true, now, now
		if err := tx.SetJob(j); err != nil {
			return err
		}
		return after.end(tx, d, api.StatusFailed)
	})
	return lost && err == nil, err
}

// currentStep is the step that a job is at: the first that has not succeeded.
func currentStep(j Job) int {
	for i, s := range j.Steps {
		if s.Status != api.StepSucceeded {
			return i
		}
	}
	return len(j.Steps) - 1
}
