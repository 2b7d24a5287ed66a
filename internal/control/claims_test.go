package control_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// lapse lets the claim timeout go by and looks.
func (p *plane) lapse(t testing.TB) {
	t.Helper()
	p.clock.Advance(control.DefaultClaimTimeout + time.Second)
	must(t, p.Look(t.Context()))
}

func TestAClaimThatNobodyTookUpIsTakenBack(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	first := p.create(t, stack, simple)
	later := p.create(t, stack, simple)
	lost, _ := p.claim(t, pool)
	p.clock.Advance(control.DefaultClaimTimeout - time.Second)
	must(t, p.Look(t.Context()))
	if got := p.status(t, stack, first); got != api.StatusAccepted {
		t.Errorf("status before the timeout = %s, want accepted", got)
	}
	p.clock.Advance(2 * time.Second)
	must(t, p.Look(t.Context()))
	d := try(p.Deployment(t.Context(), stack, first))(t)
	if d.Status != api.StatusNotStarted || d.Jobs != nil || d.Version != 1 {
		t.Errorf("after the timeout %+v, want it to wait as if it had never been claimed", d)
	}
	if n := counterValue(t, p, "longshore_server_claims_unconfirmed_total"); n != 1 {
		t.Errorf("claims counted as dissolved = %v, want 1", n)
	}

	// The token that went astray opens nothing any more, also not while the
	// deployment runs under another.
	again, job := p.claim(t, pool)
	if again.DeploymentID != first || again.JobID == lost.JobID || again.JobToken == lost.JobToken || again.RunID == lost.RunID {
		t.Errorf("the next claim is %+v, want %s under a new job and token", again, first)
	}
	try(p.JobDefinition(t.Context(), job, job.JobID, again.JobToken))(t)
	dead := try(p.Authenticate(t.Context(), lost.JobToken))(t)
	_, err := p.JobDefinition(t.Context(), dead, dead.JobID, lost.JobToken)
	wantCode(t, err, 410)
	wantCode(t, p.Heartbeat(t.Context(), dead, dead.JobID), 410)
	wantCode(t, p.ReportStep(t.Context(), dead, dead.JobID, 0, api.StepFailed), 410)
	wantCode(t, p.AppendLog(t.Context(), dead, dead.JobID, 0, lines(0, 1)), 410)
	must(t, p.AppendLog(t.Context(), job, job.JobID, 0, lines(0, 1)))
	if log := try(p.StreamLogs(t.Context(), stack, first, ""))(t); len(log.Lines) != 2 || log.Lines[0].Header != "Setup" {
		t.Errorf("log = %+v, want Setup with the one line of the job that lives", log.Lines)
	}

	p.finish(t, job, simpleSteps)
	p.lapse(t)
	if got := p.status(t, stack, first); got != api.StatusSucceeded {
		t.Errorf("status = %s, want succeeded", got)
	}
	if next, _ := p.claim(t, pool); next.DeploymentID != later {
		t.Errorf("claim = %s, want %s", next.DeploymentID, later)
	}
	p.clock.Advance(control.LateTail)
	_, err = p.Authenticate(t.Context(), lost.JobToken)
	wantCode(t, err, 401)
}

func TestWhatConfirmsAClaim(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(t *testing.T, p *plane, job control.Principal) error{
		"the definition": func(t *testing.T, p *plane, job control.Principal) error {
			_, err := p.JobDefinition(t.Context(), job, job.JobID, "x")
			return err
		},
		"a heartbeat": func(t *testing.T, p *plane, job control.Principal) error {
			return p.Heartbeat(t.Context(), job, job.JobID)
		},
		"a status": func(t *testing.T, p *plane, job control.Principal) error {
			return p.ReportStep(t.Context(), job, job.JobID, 0, api.StepRunning)
		},
		"log lines": func(t *testing.T, p *plane, job control.Principal) error {
			return p.AppendLog(t.Context(), job, job.JobID, 0, lines(0, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			pool := p.pool(t, "one")
			id := p.create(t, stack, simple)
			_, job := p.claim(t, pool)
			must(t, call(t, p, job))
			p.lapse(t)
			if got := p.status(t, stack, id); got != api.StatusAccepted && got != api.StatusRunning {
				t.Errorf("status = %s, want that of a job that lives", got)
			}
			p.wantNoWork(t, pool)
			must(t, p.Heartbeat(t.Context(), job, job.JobID))
		})
	}
}

func TestALostClaimThatWasCancelledIsSkipped(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	id, next := p.create(t, stack, simple), p.create(t, stack, simple)
	p.claim(t, pool)
	must(t, p.CancelDeployment(t.Context(), p.admin, stack, id))
	p.lapse(t)
	if got := p.status(t, stack, id); got != api.StatusSkipped {
		t.Errorf("status = %s, want skipped", got)
	}
	if work, _ := p.claim(t, pool); work.DeploymentID != next {
		t.Errorf("claim = %s, want the next of the stack, %s", work.DeploymentID, next)
	}
}

func TestALostClaimWakesThePollThatWaits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPlaneAt(t, dir, time.Now)
		pool := p.pool(t, "one")
		id := p.create(t, stack, simple)
		p.claim(t, pool)
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		began := time.Now()
		work, err := p.Poll(t.Context(), pool, agent, control.MaxWait)
		if took := time.Since(began); err != nil || work == nil || work.DeploymentID != id || took < 30*time.Second || took > 35*time.Second {
			t.Errorf("Poll() = %v, %v after %v, want %s after some 30 s", work, err, took, id)
		}
		cancel(errors.New("done"))
		must(t, <-ended)
		must(t, p.db.Close())
	})
}

func TestAServerThatWasDownTakesNoClaimBack(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	id := p.create(t, stack, simple)
	_, job := p.claim(t, pool)
	p.clock.Advance(time.Hour)
	p.reopen(t)
	p.clock.Advance(control.DefaultClaimTimeout - time.Second)
	must(t, p.Look(t.Context()))
	if got := p.status(t, stack, id); got != api.StatusAccepted {
		t.Errorf("status just before the timeout of a new start = %s, want accepted", got)
	}
	p.clock.Advance(2 * time.Second)
	must(t, p.Look(t.Context()))
	if got := p.status(t, stack, id); got != api.StatusNotStarted {
		t.Errorf("status after it = %s, want not-started", got)
	}
	wantCode(t, p.Heartbeat(t.Context(), job, job.JobID), 410)
}

// TestConfirmAndDissolveExcludeEachOther lets runners fetch their definitions
// while their claims are taken back: who has the definition has the deployment.
func TestConfirmAndDissolveExcludeEachOther(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	for range 20 {
		id := p.create(t, stack, `{"operation":"preview"}`)
		work, job := p.claim(t, pool)
		p.clock.Advance(control.DefaultClaimTimeout + time.Second)
		var (
			both    sync.WaitGroup
			looked  error
			defined error
		)
		both.Go(func() { looked = p.Look(t.Context()) })
		both.Go(func() { _, defined = p.JobDefinition(t.Context(), job, job.JobID, work.JobToken) })
		both.Wait()
		must(t, looked)
		switch status := p.status(t, stack, id); {
		case defined == nil && status == api.StatusAccepted:
		case defined != nil && status == api.StatusNotStarted:
			wantCode(t, defined, 410)
			_, job = p.claim(t, pool)
		default:
			t.Fatalf("JobDefinition() = %v while the deployment is %s", defined, status)
		}
		must(t, p.ReportStep(t.Context(), job, job.JobID, 0, api.StepFailed))
	}
}

func TestOneAgentHoldsAJob(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	p.create(t, stack, simple)
	work, job := p.claim(t, pool)
	as := func(holder string) error {
		who := job
		who.Holder = holder
		_, err := p.JobDefinition(t.Context(), who, job.JobID, work.JobToken)
		return err
	}
	for _, call := range []struct {
		holder string
		code   int
	}{
		{"", 0},         // confirmed by one that has no id
		{"first", 0},    // and taken up by one that has
		{"first", 0},    // again, such as after a restart
		{"second", 409}, // the same answer to a poll came to another
		{"", 0},         // a reader that says nothing takes nothing up
	} {
		err := as(call.holder)
		if call.code == 0 {
			must(t, err)
			continue
		}
		wantCode(t, err, call.code)
	}
}
