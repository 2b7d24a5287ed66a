package control_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

func TestOneStackOneDeploymentInOrder(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	first, second := p.create(t, stack, simple), p.create(t, stack, simple)
	other := p.create(t, control.StackRef{Organization: org, Project: "shop", Stack: "dev"}, simple)

	a, jobA := p.claim(t, pool)
	if a.DeploymentID != first {
		t.Errorf("first claim = %s, want the oldest %s", a.DeploymentID, first)
	}
	if b, _ := p.claim(t, pool); b.DeploymentID != other {
		t.Errorf("second claim = %s, want that of the other stack %s", b.DeploymentID, other)
	}
	p.wantNoWork(t, pool)
	p.finish(t, jobA, simpleSteps)
	if got := p.status(t, stack, first); got != api.StatusSucceeded {
		t.Errorf("status = %s, want succeeded", got)
	}
	if c, _ := p.claim(t, pool); c.DeploymentID != second {
		t.Errorf("claim after the end of the first = %s, want %s", c.DeploymentID, second)
	}
}

func TestPools(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	first, second := p.pool(t, "first"), p.pool(t, "second")

	named := p.create(t, stack, fmt.Sprintf(`{"operation":"preview","agentPoolID":%q}`, second.PoolID))
	unnamed := p.create(t, control.StackRef{Organization: org, Project: "shop", Stack: "dev"}, `{"operation":"preview"}`)

	if work, _ := p.claim(t, first); work.DeploymentID != unnamed {
		t.Errorf("the default pool got %s, want the one that names no pool", work.DeploymentID)
	}
	p.wantNoWork(t, first)
	list := try(p.Pools(t.Context(), org))(t)
	if list.DefaultAgentPoolID != first.PoolID || len(list.AgentPools) != 2 || list.AgentPools[0].Status != "online" || list.AgentPools[1].Status != "offline" {
		t.Errorf("Pools() = %+v, want the first as default and online, the second offline", list)
	}

	wantCode(t, p.DeletePool(t.Context(), org, second.PoolID, false), 400)
	must(t, p.DeletePool(t.Context(), org, second.PoolID, true))
	if got := p.status(t, stack, named); got != api.StatusSkipped {
		t.Errorf("status of what waited for the deleted pool = %s, want skipped", got)
	}
	if _, err := p.Poll(t.Context(), second, agent, 0); err == nil {
		t.Error("Poll() of a deleted pool worked")
	}
	wantCode(t, p.DeletePool(t.Context(), org, second.PoolID, true), 404)
	if _, err := p.CreatePool(t.Context(), org, api.CreateOrgAgentPoolRequest{Name: "first"}); err == nil {
		t.Error("CreatePool() made a second pool of the same name")
	}
	patched := try(p.PatchPool(t.Context(), org, first.PoolID, api.CreateOrgAgentPoolRequest{Description: "new"}))(t)
	if patched.Name != "first" || patched.Description != "new" {
		t.Errorf("PatchPool() = %+v, want the name kept and the description changed", patched)
	}
	p.clock.Advance(3 * time.Minute)
	detail := try(p.Pool(t.Context(), org, first.PoolID))(t)
	if len(detail.Agents) != 1 || detail.Agents[0].Hostname != "host-a" || detail.Agents[0].Status != "offline" {
		t.Errorf("Pool() = %+v, want the agent, offline after three minutes", detail)
	}
	third := p.pool(t, "third")
	must(t, p.DeletePool(t.Context(), org, first.PoolID, true))
	if got := try(p.Pools(t.Context(), org))(t).DefaultAgentPoolID; got != third.PoolID {
		t.Errorf("default pool after the default was deleted = %q, want the oldest left, %q", got, third.PoolID)
	}
}

func TestAHeldPollAnswersWhenWorkArrives(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	for name, arrive := range map[string]func(){
		"created": func() { p.create(t, stack, simple) },
	} {
		got := make(chan *api.AgentWorkflowDefinition, 1)
		go func() {
			work, err := p.Poll(context.Background(), pool, agent, control.MaxWait)
			if err != nil {
				t.Errorf("%s: Poll: %v", name, err)
			}
			got <- work
		}()
		begin := time.Now()
		arrive()
		if work := <-got; work == nil || time.Since(begin) > 20*time.Second {
			t.Errorf("%s: Poll() = %v after %s, want work at once", name, work, time.Since(begin))
		}
	}
}

func TestAHeldPollAnswersWhenTheStackIsFree(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	p.create(t, stack, simple)
	second := p.create(t, stack, simple)
	_, job := p.claim(t, pool)
	got := make(chan *api.AgentWorkflowDefinition, 1)
	go func() {
		work, _ := p.Poll(context.Background(), pool, agent, control.MaxWait)
		got <- work
	}()
	must(t, p.ReportStep(t.Context(), job, job.JobID, 0, api.StepFailed))
	if work := <-got; work == nil || work.DeploymentID != second {
		t.Errorf("Poll() = %v, want deployment %s", work, second)
	}
}

func TestAPollThatIsGoneClaimsNothing(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	gone := errors.New("the agent hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := p.Poll(ctx, pool, agent, control.MaxWait)
		done <- err
	}()
	cancel(gone)
	if err := <-done; err == nil {
		t.Error("Poll() = nil, want the cause")
	}
	id := p.create(t, stack, simple)
	if _, err := p.Poll(ctx, pool, agent, 0); err == nil {
		t.Error("Poll() of an ended context claimed")
	}
	if work, _ := p.claim(t, pool); work.DeploymentID != id {
		t.Errorf("claim = %s, want %s", work.DeploymentID, id)
	}
}

// TestAHundredClaimers is the promise that matters most: each deployment is
// handed out exactly once, and never are two of one stack active.
func TestAHundredClaimers(t *testing.T) {
	t.Parallel()
	const claimers, stacks, perStack = 100, 10, 6
	p := newPlane(t)
	pool := p.pool(t, "one")
	var (
		mu     sync.Mutex
		claims = map[string]int{}
		active = map[string]string{} // stack -> deployment
		left   = stacks * perStack
		all    = make(chan struct{})
		wg     sync.WaitGroup
	)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	one := func() error {
		work, err := p.Poll(ctx, pool, agent, control.MaxWait)
		if err != nil || work == nil {
			return err
		}
		job, err := p.Authenticate(ctx, work.JobToken)
		if err != nil {
			return err
		}
		mu.Lock()
		claims[work.DeploymentID]++
		if other, ok := active[job.Stack.Stack]; ok {
			t.Errorf("stack %s has %s and %s active", job.Stack, other, work.DeploymentID)
		}
		active[job.Stack.Stack] = work.DeploymentID
		mu.Unlock()
		if err := p.ReportStep(ctx, job, job.JobID, 0, api.StepRunning); err != nil {
			return err
		}
		mu.Lock()
		delete(active, job.Stack.Stack)
		left--
		last := left == 0
		mu.Unlock()
		if err := p.ReportStep(ctx, job, job.JobID, 0, api.StepFailed); err != nil {
			return err
		}
		if last {
			close(all)
		}
		return nil
	}
	for range claimers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := one(); err != nil && ctx.Err() == nil {
					t.Errorf("claimer: %v", err)
					return
				}
			}
		})
	}
	for i := range stacks * perStack {
		p.create(t, control.StackRef{Organization: org, Project: "shop", Stack: fmt.Sprint("s", i%stacks)}, `{"operation":"preview"}`)
	}
	select {
	case <-all:
	case <-time.After(60 * time.Second):
		t.Errorf("%d deployments were not handed out in a minute", left)
	}
	cancel(errors.New("done"))
	wg.Wait()
	for id, n := range claims {
		if n != 1 {
			t.Errorf("deployment %s was handed out %d times", id, n)
		}
	}
	if len(claims) != stacks*perStack {
		t.Errorf("%d deployments were handed out, want %d", len(claims), stacks*perStack)
	}
	if n, err := testutil.GatherAndCount(p.reg, "longshore_server_claims_total", "longshore_server_queue_depth"); err != nil || n != 2 {
		t.Errorf("metrics gathered = %d, %v, want 2", n, err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	running, queued := p.create(t, stack, simple), p.create(t, stack, simple)
	_, job := p.claim(t, pool)

	must(t, p.CancelDeployment(t.Context(), p.admin, stack, queued))
	if got := p.status(t, stack, queued); got != api.StatusSkipped {
		t.Errorf("status of a cancelled deployment that waited = %s, want skipped", got)
	}

	must(t, p.ReportStep(t.Context(), job, job.JobID, 0, api.StepRunning))
	seen := make(chan api.Status, 1)
	go func() {
		status, _ := p.RunnerStatus(context.Background(), pool, running, control.MaxWait)
		seen <- status
	}()
	must(t, p.CancelDeployment(t.Context(), p.admin, stack, running))
	if got := <-seen; got != api.StatusFailed {
		t.Errorf("RunnerStatus() after a cancel = %s, want failed", got)
	}
	if got := p.status(t, stack, running); got != api.StatusRunning {
		t.Errorf("public status before the runner has stopped = %s, want running", got)
	}
	third := p.create(t, stack, simple)
	p.wantNoWork(t, pool) // the stack is occupied until the job ends

	must(t, p.ReportStep(t.Context(), job, job.JobID, 0, api.StepFailed))
	if got := p.status(t, stack, running); got != api.StatusFailed {
		t.Errorf("status after the runner has stopped = %s, want failed", got)
	}
	must(t, p.CancelDeployment(t.Context(), p.admin, stack, running)) // no effect
	if work, _ := p.claim(t, pool); work.DeploymentID != third {
		t.Errorf("claim = %s, want %s", work.DeploymentID, third)
	}
	wantCode(t, p.CancelDeployment(t.Context(), p.admin, stack, "nonsense"), 404)
}

func TestWorkThatFinishedBeforeItHeardOfACancelSucceeds(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	id := p.create(t, stack, simple)
	_, job := p.claim(t, pool)
	must(t, p.CancelDeployment(t.Context(), p.admin, stack, id))
	p.finish(t, job, simpleSteps)
	if got := p.status(t, stack, id); got != api.StatusSucceeded {
		t.Errorf("status = %s, want succeeded", got)
	}
}

// TestAWakeIsNotLost lets the poll that is woken hang up at that very moment:
// the one that waits behind it must get the work.
func TestAWakeIsNotLost(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	for i := range 30 {
		ref := control.StackRef{Organization: org, Project: "shop", Stack: fmt.Sprint("s", i)}
		ctx, hangUp := context.WithCancelCause(t.Context())
		poll := func(ctx context.Context) <-chan string {
			got := make(chan string, 1)
			go func() {
				work, err := p.Poll(ctx, pool, agent, 30*time.Second)
				if err != nil || work == nil {
					got <- ""
					return
				}
				got <- work.DeploymentID
			}()
			return got
		}
		leaves, stays := poll(ctx), poll(t.Context())
		go hangUp(errors.New("the agent hung up"))
		want := p.create(t, ref, simple)
		if <-leaves == want { // it was quick enough, so the other still waits
			want = p.create(t, control.StackRef{Organization: org, Project: "other", Stack: fmt.Sprint("s", i)}, simple)
		}
		if got := <-stays; got != want {
			t.Fatalf("round %d: the waiting poll got %q, want %s", i, got, want)
		}
	}
}
