package control_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// model is the state machine in its smallest form: deployments of a few stacks
// in order, each with its status, its cancel mark, its job and its steps.
type model struct {
	order   []*modelDeployment  // oldest first
	touched *modelDeployment    // by the last action
	dead    []control.Principal // of claims that were dissolved
}

type modelDeployment struct {
	id, stack string
	status    api.Status
	cancelled bool
	confirmed bool // its runner was heard of
	steps     []api.StepStatus
	job       control.Principal
	token     string
}

// claimable returns what the next claim must hand out, nil for nothing.
func (m *model) claimable() *modelDeployment {
	busy := map[string]bool{}
	for _, d := range m.order {
		if d.status.Terminal() || busy[d.stack] {
			continue
		}
		if d.status == api.StatusNotStarted {
			return d
		}
		busy[d.stack] = true
	}
	return nil
}

// report says what a report must lead to: whether it is accepted.
func (d *modelDeployment) report(step int, to api.StepStatus) bool {
	from := d.steps[step]
	switch {
	case from == to:
		return true
	case d.status.Terminal():
		return false
	case from == api.StepNotStarted:
		// Setup may end at once, other steps begin or fail when all before
		// them have succeeded, Setup by implication.
		if to == api.StepSucceeded && step != 0 {
			return false
		}
		for i, s := range d.steps[:step] {
			if s != api.StepSucceeded && i > 0 || s == api.StepFailed {
				return false
			}
		}
		if step > 0 {
			d.steps[0] = api.StepSucceeded
		}
	case from != api.StepRunning:
		return false
	}
	d.steps[step] = to
	d.status, d.confirmed = api.StatusRunning, true
	if to == api.StepFailed {
		d.status = api.StatusFailed
	} else if d.done() {
		d.status = api.StatusSucceeded
	}
	return true
}

func (d *modelDeployment) done() bool {
	for _, s := range d.steps {
		if s != api.StepSucceeded {
			return false
		}
	}
	return true
}

// TestModel runs random sequences of calls against the service and the model
// and compares what both say after each.
func TestModel(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := &model{}
		ref := func(name string) control.StackRef {
			return control.StackRef{Organization: org, Project: fmt.Sprint("run", run), Stack: name}
		}
		pick := func(rt *rapid.T) *modelDeployment {
			if len(m.order) == 0 {
				rt.Skip("there is no deployment yet")
			}
			m.touched = rapid.SampledFrom(m.order).Draw(rt, "deployment")
			return m.touched
		}
		// The deployment that an action was about is compared after it, all of
		// them at the end.
		check := func(rt *rapid.T, d *modelDeployment) {
			got, err := p.Deployment(t.Context(), ref(d.stack), d.id)
			if err != nil || got.Status != d.status {
				rt.Fatalf("deployment %s is %s, %v, want %s", d.id, got.Status, err, d.status)
			}
			if d.steps == nil && got.Jobs != nil {
				rt.Fatalf("deployment %s has jobs %v, want none", d.id, got.Jobs)
			}
			for i, s := range d.steps {
				if got.Jobs[0].Steps[i].Status != s {
					rt.Fatalf("step %d of %s is %s, want %s", i, d.id, got.Jobs[0].Steps[i].Status, s)
				}
			}
			want := d.status
			if d.cancelled && !want.Terminal() {
				want = api.StatusFailed
			}
			if seen, err := p.RunnerStatus(t.Context(), pool, d.id, 0); err != nil || seen != want {
				rt.Fatalf("RunnerStatus(%s) = %s, %v, want %s", d.id, seen, err, want)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(rt *rapid.T) {
				name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "stack")
				d := &modelDeployment{id: p.create(t, ref(name), `{"operation":"preview"}`), stack: name, status: api.StatusNotStarted}
				m.order, m.touched = append(m.order, d), d
			},
			"claim": func(rt *rapid.T) {
				work, err := p.Poll(t.Context(), pool, agent, 0)
				want := m.claimable()
				if err != nil || (work == nil) != (want == nil) || work != nil && work.DeploymentID != want.id {
					rt.Fatalf("Poll() = %v, %v, want %v", work, err, want)
				}
				if m.touched = want; want != nil {
					want.status, want.confirmed, want.token = api.StatusAccepted, false, work.JobToken
					want.job = try(p.Authenticate(t.Context(), work.JobToken))(t)
					want.steps = []api.StepStatus{api.StepNotStarted, api.StepNotStarted, api.StepNotStarted, api.StepNotStarted}
				}
			},
			"define": func(rt *rapid.T) {
				d := pick(rt)
				if d.status != api.StatusAccepted && d.status != api.StatusRunning {
					rt.Skip("it has no job that lives")
				}
				def, err := p.JobDefinition(t.Context(), d.job, d.job.JobID, d.token)
				if err != nil || len(def.Steps) != len(d.steps) {
					rt.Fatalf("JobDefinition(%s) = %d steps, %v", d.job.JobID, len(def.Steps), err)
				}
				d.confirmed = true
			},
			"lapse": func(rt *rapid.T) { // those whose runner was heard of go on
				for _, d := range m.order {
					if d.confirmed && !d.status.Terminal() {
						must(t, p.Heartbeat(t.Context(), d.job, d.job.JobID))
					}
				}
				p.clock.Advance(control.DefaultClaimTimeout + time.Second)
				must(t, p.Look(t.Context()))
				for _, d := range m.order {
					if d.status != api.StatusAccepted || d.confirmed {
						continue
					}
					m.dead = append(m.dead, d.job)
					d.status, d.steps, m.touched = api.StatusNotStarted, nil, d
					if d.cancelled {
						d.status = api.StatusSkipped
					}
				}
			},
			"dead": func(rt *rapid.T) { // nothing that a dead token does has an effect
				if len(m.dead) == 0 {
					rt.Skip("no claim was dissolved yet")
				}
				job := rapid.SampledFrom(m.dead).Draw(rt, "job")
				_, err := p.JobDefinition(t.Context(), job, job.JobID, "x")
				wantCode(t, err, 410)
				wantCode(t, p.Heartbeat(t.Context(), job, job.JobID), 410)
				wantCode(t, p.ReportStep(t.Context(), job, job.JobID, 0, api.StepRunning), 410)
				wantCode(t, p.AppendLog(t.Context(), job, job.JobID, 0, lines(0, 1)), 410)
			},
			"report": func(rt *rapid.T) {
				d := pick(rt)
				if d.steps == nil {
					rt.Skip("it has no job")
				}
				step := rapid.IntRange(0, len(d.steps)-1).Draw(rt, "step")
				to := rapid.SampledFrom([]api.StepStatus{api.StepRunning, api.StepSucceeded, api.StepFailed}).Draw(rt, "to")
				err := p.ReportStep(t.Context(), d.job, d.job.JobID, step, to)
				if accepted := d.report(step, to); accepted != (err == nil) {
					rt.Fatalf("ReportStep(%d, %s) = %v, want accepted %v", step, to, err, accepted)
				}
			},
			"advance": func(rt *rapid.T) { // the likely next report, so that some runs get to an end
				d := pick(rt)
				for i, s := range d.steps {
					if s.Terminal() || d.status.Terminal() {
						continue
					}
					to := api.StepRunning
					if s == api.StepRunning {
						to = api.StepSucceeded
					}
					d.report(i, to)
					must(t, p.ReportStep(t.Context(), d.job, d.job.JobID, i, to))
					return
				}
			},
			"cancel": func(rt *rapid.T) {
				d := pick(rt)
				must(t, p.CancelDeployment(t.Context(), p.admin, ref(d.stack), d.id))
				switch {
				case d.status == api.StatusNotStarted:
					d.status = api.StatusSkipped
				case !d.status.Terminal():
					d.cancelled = true
				}
			},
			"": func(rt *rapid.T) {
				if m.touched != nil {
					check(rt, m.touched)
				}
			},
		})
		for _, d := range m.order {
			check(rt, d)
		}
		for _, d := range m.order { // leave nothing for the next run to claim
			must(t, p.CancelDeployment(t.Context(), p.admin, ref(d.stack), d.id))
		}
		p.clock.Advance(time.Second)
	})
}
