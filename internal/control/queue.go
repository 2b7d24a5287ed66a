package control

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// MaxWait is the longest that a poll or a status call is held open.
const MaxWait = 60 * time.Second

// Poll claims a deployment for an agent of the pool that p stands for. When
// there is none it waits for one, for at most wait (0 to MaxWait), and returns
// nil, nil. Nothing is claimed when ctx ends before the claim is committed.
func (s *Service) Poll(ctx context.Context, p Principal, agent AgentInfo, wait time.Duration) (*api.AgentWorkflowDefinition, error) {
	if err := p.need(KindPool); err != nil {
		return nil, err
	}
	if err := s.seen(ctx, p, agent); err != nil {
		return nil, err
	}
	in := s.waiting.join(p.PoolID)
	defer s.waiting.leave(in)
	timer := time.NewTimer(min(max(wait, 0), MaxWait))
	defer timer.Stop()
	for {
		work, err := s.claim(ctx, p, agent)
		if work != nil || err != nil {
			// There may be more, and if this failed then this is still there.
			s.waiting.wake(p.PoolID)
			return work, err
		}
		if wait <= 0 {
			return nil, nil
		}
		select {
		case <-in.woke:
			s.waiting.rejoin(in)
		case <-timer.C:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// seen notes that an agent is there.
func (s *Service) seen(ctx context.Context, p Principal, agent AgentInfo) error {
	if !s.presence.due(p.PoolID, agent, s.now()) {
		return nil
	}
	err := s.store.Update(ctx, func(tx Tx) error { return tx.SeeAgent(p.PoolID, agent) })
	if errors.Is(err, ErrNotFound) {
		return unauthorized() // the pool was deleted, and its token with it
	}
	return err
}

// claim takes the next deployment of the pool, nil when there is none.
func (s *Service) claim(ctx context.Context, p Principal, agent AgentInfo) (work *api.AgentWorkflowDefinition, err error) {
	// Most polls find nothing, and looking does not disturb those who write. In
	// the middle of a burst there is no need to look twice.
	if !s.waiting.likely(p.PoolID) {
		err := s.store.View(ctx, func(tx Tx) error {
			_, err := next(tx, p)
			return err
		})
		if errors.Is(err, ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	work, err = s.take(ctx, p, agent)
	if err == nil {
		s.waiting.found(p.PoolID, work != nil)
	}
	return work, err
}

// take is claim without looking first.
func (s *Service) take(ctx context.Context, p Principal, agent AgentInfo) (*api.AgentWorkflowDefinition, error) {
	var (
		work *api.AgentWorkflowDefinition
		wait time.Duration
	)
	err := s.update(ctx, func(tx Tx, _ *effects) error {
		d, err := next(tx, p)
		if err != nil {
			return err
		}
		wait = tx.Now().Sub(d.Created)
		work, err = s.handOut(tx, d, p, agent)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil // another was quicker
	}
	if err != nil {
		return nil, err
	}
	s.metrics.claims.Inc()
	s.metrics.claimWait.Observe(wait.Seconds())
	return work, nil
}

// next returns the deployment that an agent of the pool is to get.
func next(tx Tx, p Principal) (Deployment, error) {
	current, err := tx.DefaultPool(p.Organization)
	if err != nil {
		return Deployment{}, err
	}
	return tx.NextFor(p.Organization, p.PoolID, current == p.PoolID)
}

// handOut gives d a job with its steps and its token.
func (s *Service) handOut(tx Tx, d Deployment, p Principal, agent AgentInfo) (*api.AgentWorkflowDefinition, error) {
	req, err := decodeRequest(d)
	if err != nil {
		return nil, err
	}
	jobID, err := newID()
	if err != nil {
		return nil, err
	}
	runID, err := newID()
	if err != nil {
		return nil, err
	}
	now := tx.Now()
	j := Job{
		ID: jobID, DeploymentID: d.ID, RunID: runID, PoolID: p.PoolID, Agent: agent,
		Status: api.StatusAccepted, Claimed: now, Modified: now, LastBeat: now,
	}
	// The names of the steps do not depend on secrets, so these stay sealed.
	for _, step := range Compile(s.compileInput(d, req)).Steps {
		j.Steps = append(j.Steps, StepState{Name: step.Name, Status: api.StepNotStarted})
	}
	if err := tx.SetStatus(d.ID, d.Status, api.StatusAccepted); err != nil {
		return nil, err
	}
	if err := tx.AddJob(j); err != nil {
		return nil, err
	}
	token := newToken(PrefixJob)
	hash, _ := hashToken(token)
	if err := tx.AddToken(Token{Hash: hash, Kind: KindJob, Organization: p.Organization, JobID: jobID}); err != nil {
		return nil, err
	}
	return &api.AgentWorkflowDefinition{
		DeploymentID: d.ID, TypeSpecificID: d.ID, JobID: jobID, RunID: runID, JobToken: token,
	}, nil
}

// RunnerStatus returns the status of a deployment as the agent that runs it is
// to see it: failed as soon as a cancel was asked for. If it is no end it waits
// for one, for at most wait (0 to MaxWait).
func (s *Service) RunnerStatus(ctx context.Context, p Principal, deploymentID string, wait time.Duration) (api.Status, error) {
	if err := p.need(KindPool); err != nil {
		return "", err
	}
	timer := time.NewTimer(min(max(wait, 0), MaxWait))
	defer timer.Stop()
	for {
		rung, done := s.bells.watch(deploymentID)
		status, err := s.runnerStatus(ctx, p, deploymentID)
		if err != nil || status.Terminal() || wait <= 0 {
			done()
			return status, err
		}
		select {
		case <-rung:
			done()
		case <-timer.C:
			done()
			return s.runnerStatus(ctx, p, deploymentID)
		case <-ctx.Done():
			done()
			return "", context.Cause(ctx)
		}
	}
}

func (s *Service) runnerStatus(ctx context.Context, p Principal, id string) (status api.Status, err error) {
	err = s.store.View(ctx, func(tx Tx) error {
		d, err := tx.Deployment(id)
		if err == nil && d.Stack.Organization != p.Organization {
			err = ErrNotFound
		}
		if err != nil {
			return orNotFound(err, "there is no deployment %q", shorten(id))
		}
		pool := d.PoolID
		if j, err := tx.JobOf(id); err == nil {
			pool = j.PoolID
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		if pool != "" && pool != p.PoolID {
			return api.Errorf(http.StatusForbidden, "deployment %s belongs to another agent pool", id)
		}
		status = d.Status
		if !d.CancelRequested.IsZero() && !status.Terminal() {
			status = api.StatusFailed
		}
		return nil
	})
	return status, err
}
