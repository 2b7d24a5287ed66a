package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// State is how far an agent is on its way to its end.
type State string

// The states of an agent, each of which only leads to those after it.
const (
	Running    State = "running"
	Draining   State = "draining"   // claims no more; what is in hand may finish
	Cancelling State = "cancelling" // what is in hand is being ended
)

// errDrainTimeout is the cause by which jobs end that a drain waits for too long.
var errDrainTimeout = errors.New("the agent could wait no longer for its jobs")

// stop is the agent's way to its end.
type stop struct {
	mu      sync.Mutex
	state   State
	limit   time.Time     // what is in hand then is cancelled; zero: never
	limited chan struct{} // has a value when limit was brought forward
	begun   chan struct{} // closed when state is no longer Running
}

func newStop() *stop {
	return &stop{state: Running, limited: make(chan struct{}, 1), begun: make(chan struct{})}
}

func (s *stop) enter(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == Running {
		close(s.begun)
	}
	s.state = state
}

// now returns the state, and until when a drain waits.
func (s *stop) now() (State, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.limit
}

// by brings the limit forward; a later one than that of before is ignored.
func (s *stop) by(limit time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.limit.IsZero() && !limit.Before(s.limit) {
		return
	}
	s.limit = limit
	select {
	case s.limited <- struct{}{}:
	default:
	}
}

// Job is a job in hand.
type Job struct {
	JobID, DeploymentID string
	Claimed             time.Time
}

// Jobs returns the jobs that the agent has in hand, as far as it remembers them,
// the oldest first.
func (a *Agent) Jobs() []Job {
	entries, _ := a.memory.All() // what cannot be read is said by those who need it
	var jobs []Job
	for _, e := range entries {
		if e.End == nil {
			jobs = append(jobs, Job{e.Work.JobID, e.Work.Deployment(), e.Claimed})
		}
	}
	return jobs
}

// Busy returns how many slots are in use.
func (a *Agent) Busy() int { return a.loop.Busy() }

// State returns the state of the agent and, where a drain waits for jobs with a
// limit, the moment at which they are cancelled.
func (a *Agent) State() (state State, limit time.Time) { return a.stop.now() }

// Stopping returns a channel that is closed when the agent has begun to drain or
// to cancel.
func (a *Agent) Stopping() <-chan struct{} { return a.stop.begun }

// CancelBy sees to it that a drain waits for the jobs in hand until the given
// moment at most: then they are cancelled, as when the context of Run ends. The
// earliest of several moments counts. It starts no drain by itself.
func (a *Agent) CancelBy(limit time.Time) { a.stop.by(limit) }

// watch follows a run of the loop to its end, says what happens, and cancels what
// is in hand when a drain has waited long enough.
func (a *Agent) watch(ctx context.Context, drain, ended <-chan struct{}, cancel context.CancelCauseFunc) {
	select {
	case <-drain:
	case <-ctx.Done():
		a.cancelling(context.Cause(ctx))
		return
	case <-ended:
		return
	}
	a.health.Set("agent", errors.New("draining: claims no more deployments"))
	if a.drainTimeout > 0 {
		a.stop.by(time.Now().Add(a.drainTimeout))
	}
	a.stop.enter(Draining)
	_, limit := a.stop.now()
	a.log.Info("draining: no new polls; waiting for the one that is held and for the jobs in hand",
		append(a.inHand(), until(limit))...)
	for {
		overdue, stopTimer := at(limit)
		select {
		case <-overdue:
			a.cancelling(errDrainTimeout)
			cancel(errDrainTimeout)
			return
		case <-a.stop.limited:
			stopTimer()
			_, limit = a.stop.now()
			continue
		case <-ctx.Done():
			stopTimer()
			a.cancelling(context.Cause(ctx))
			return
		case <-ended:
			stopTimer()
			return
		}
	}
}

func (a *Agent) cancelling(cause error) {
	a.stop.enter(Cancelling)
	a.health.Set("agent", errors.New("stopping"))
	a.log.Warn("stopping: jobs in hand are cancelled", append(a.inHand(), zap.NamedError("cause", cause))...)
}

// inHand describes the jobs in hand for the log.
func (a *Agent) inHand() []zap.Field {
	ids := []string{}
	for _, job := range a.Jobs() {
		ids = append(ids, job.JobID)
	}
	return []zap.Field{zap.Int("jobs_in_hand", a.loop.Busy()), zap.Strings("job_ids", ids)}
}

// Abandon says in the log what becomes of the jobs in hand when the program
// leaves without waiting for them.
func (a *Agent) Abandon() {
	a.log.Warn("leaving at once: jobs in hand are left running for the next agent", a.inHand()...)
}

func until(limit time.Time) zap.Field {
	if limit.IsZero() {
		return zap.String("until", "they end")
	}
	return zap.Time("until", limit)
}

// at returns a channel that receives at the given moment; never when it is zero.
func at(moment time.Time) (<-chan time.Time, func()) {
	if moment.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(time.Until(moment))
	return timer.C, func() { timer.Stop() }
}
