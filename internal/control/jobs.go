package control

import (
	"context"
	"net/http"
	"strings"

	"github.com/longshore-run/longshore/internal/api"
)

// endedError answers a runner whose job is over. It is to stop.
func endedError() error {
	return api.Errorf(http.StatusGone, "the job has ended")
}

// theJob returns the job of a runner and its deployment.
func (s *Service) theJob(tx Tx, p Principal, jobID string) (Job, Deployment, error) {
	j, err := tx.Job(jobID)
	if err != nil {
		return Job{}, Deployment{}, orNotFound(err, "there is no job %q", shorten(jobID))
	}
	d, err := tx.Deployment(j.DeploymentID)
	return j, d, err
}

// JobDefinition returns the recipe of a job to its runner. token is the job
// token that the runner presented; it becomes part of the recipe and is not
// kept. After the end of the job it is a 410. The claim is confirmed before the
// recipe is given: who has it may run it.
func (s *Service) JobDefinition(ctx context.Context, p Principal, jobID, token string) (api.JobDefinition, error) {
	var none api.JobDefinition
	if err := p.needJob(jobID); err != nil {
		return none, err
	}
	var (
		j Job
		d Deployment
	)
	err := s.store.View(ctx, func(tx Tx) (err error) {
		j, d, err = s.theJob(tx, p, jobID)
		return err
	})
	if err != nil {
		return none, err
	}
	if !j.Ended.IsZero() {
		return none, endedError()
	}
	if err := s.hold(ctx, p, j); err != nil {
		return none, err
	}
	req, err := decodeRequest(d)
	if err != nil {
		return none, err
	}
	if err := openSecrets(&req, s.sealer, d.Stack); err != nil {
		return none, err
	}
	in := s.compileInput(d, req)
	in.Token = token
	if _, arch, ok := strings.Cut(j.Agent.Platform, "/"); ok {
		in.Architecture = arch
	}
	return Compile(in), nil
}

// hold gives the job to the one who asks for its definition, unless somebody
// else has it, and confirms its claim.
func (s *Service) hold(ctx context.Context, p Principal, j Job) error {
	if !j.Confirmed.IsZero() && (j.Holder == p.Holder || p.Holder == "") {
		return nil // the usual case, which writes nothing
	}
	return s.store.Update(ctx, func(tx Tx) error {
		j, err := tx.Job(j.ID)
		switch {
		case err != nil:
			return err
		case !j.Ended.IsZero():
			return endedError()
		case j.Holder != "" && p.Holder != "" && j.Holder != p.Holder:
			return api.Errorf(http.StatusConflict, "another agent has taken this job up; it must not run twice")
		}
		if j.Holder == "" && p.Holder != "" {
			j.Holder = p.Holder
			if err := tx.SetJob(j); err != nil {
				return err
			}
		}
		return tx.Beat(j.ID)
	})
}

// Heartbeat notes that a job lives, which confirms its claim. After its end it
// is a 410.
func (s *Service) Heartbeat(ctx context.Context, p Principal, jobID string) error {
	if err := p.needJob(jobID); err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx Tx) error {
		j, err := tx.Job(jobID)
		if err != nil {
			return err
		}
		if !j.Ended.IsZero() {
			return endedError()
		}
		return tx.Beat(jobID)
	})
}

// ReportStep notes what a runner says of a step, and what follows from it for
// the job and the deployment. The status that the step has already has no
// effect; a move that may not be is a 409, a step that does not exist a 404,
// and a step that had not ended when its job did a 410.
func (s *Service) ReportStep(ctx context.Context, p Principal, jobID string, step int, status api.StepStatus) error {
	if err := p.needJob(jobID); err != nil {
		return err
	}
	if !status.Valid() || status == api.StepNotStarted {
		return api.Errorf(http.StatusBadRequest, "status: %q is none that a step can be reported in, want running, succeeded or failed", shorten(string(status)))
	}
	return s.update(ctx, func(tx Tx, after *effects) error {
		j, d, err := s.theJob(tx, p, jobID)
		if err != nil {
			return err
		}
		if step < 0 || step >= len(j.Steps) {
			return noStep(step, len(j.Steps))
		}
		if j.Steps[step].Status == status {
			return nil
		}
		if !j.Ended.IsZero() && (j.Lost || !j.Steps[step].Status.Terminal()) {
			return endedError()
		}
		r := report{tx: tx, after: after, job: j, deployment: d}
		return r.apply(step, status)
	})
}

func noStep(step, count int) error {
	return api.Errorf(http.StatusNotFound, "the job has no step %d, its steps are 0 to %d", step, count-1)
}

// report is one step report on its way into the database.
type report struct {
	tx         Tx
	after      *effects
	job        Job
	deployment Deployment
}

func (r *report) apply(step int, status api.StepStatus) error {
	current := r.job.Steps[step].Status
	// A runner may leave out that Setup runs: its end implies its start.
	implied := step == 0 && current == api.StepNotStarted && status == api.StepSucceeded
	if !current.CanBecome(status) && !implied {
		return api.Errorf(http.StatusConflict, "step %d is %s and cannot become %s", step, current, status)
	}
	if current == api.StepNotStarted {
		if err := r.before(step); err != nil {
			return err
		}
	}
	if err := r.set(step, status); err != nil {
		return err
	}
	return r.conclude(status)
}

// before checks that every step before this one has succeeded. A step that
// begins implies that Setup did.
func (r *report) before(step int) error {
	if step > 0 && !r.job.Steps[0].Status.Terminal() {
		if err := r.set(0, api.StepSucceeded); err != nil {
			return err
		}
	}
	for i, s := range r.job.Steps[:step] {
		if s.Status != api.StepSucceeded {
			return api.Errorf(http.StatusConflict, "step %d cannot begin while step %d is %s", step, i, s.Status)
		}
	}
	return nil
}

func (r *report) set(step int, status api.StepStatus) error {
	s := &r.job.Steps[step]
	s.Status, s.Modified = status, r.tx.Now()
	if s.Started.IsZero() {
		s.Started = r.tx.Now()
	}
	return r.tx.SetStep(r.job.ID, step, *s)
}

// conclude derives the job and the deployment from the steps.
func (r *report) conclude(status api.StepStatus) error {
	now := r.tx.Now()
	r.job.Modified, r.job.LastBeat = now, now
	if r.job.Confirmed.IsZero() {
		r.job.Confirmed = now
	}
	if r.job.Started.IsZero() {
		r.job.Started = now
	}
	end := api.Status("")
	switch {
	case status == api.StepFailed:
		end = api.StatusFailed
	case r.allSucceeded():
		end = api.StatusSucceeded
	}
	if r.job.Status == api.StatusAccepted && end != api.StatusFailed {
		r.job.Status = api.StatusRunning
		if err := r.tx.SetStatus(r.deployment.ID, r.deployment.Status, api.StatusRunning); err != nil {
			return err
		}
		r.deployment.Status = api.StatusRunning
	}
	if end != "" {
		r.job.Status, r.job.Ended = end, now
		if err := r.after.end(r.tx, r.deployment, end); err != nil {
			return err
		}
	}
	return r.tx.SetJob(r.job)
}

func (r *report) allSucceeded() bool {
	for _, s := range r.job.Steps {
		if s.Status != api.StepSucceeded {
			return false
		}
	}
	return true
}
