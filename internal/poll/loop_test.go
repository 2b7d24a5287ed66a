package poll_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/poll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a queue that holds polls open, as Longshore's server does.
type service struct {
	mu      sync.Mutex
	queue   []string
	arrived chan struct{}
	polls   []time.Time
	open    int // polls that are being held
	most    int // that were, at the same time
	ignores bool
	answer  poll.Answer // of a poll without work
	err     error
}

func newService(ids ...string) *service {
	return &service{queue: ids, arrived: make(chan struct{})}
}

func (s *service) put(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, ids...)
	close(s.arrived)
	s.arrived = make(chan struct{})
}

func (s *service) Claim(ctx context.Context, wait time.Duration) (poll.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polls = append(s.polls, time.Now())
	s.open++
	s.most = max(s.most, s.open)
	defer func() { s.open-- }()
	until := time.After(wait)
	for {
		if s.err != nil {
			return s.answer, s.err
		}
		if len(s.queue) > 0 {
			id := s.queue[0]
			s.queue = s.queue[1:]
			return poll.Answer{Work: &api.AgentWorkflowDefinition{JobID: id, TypeSpecificID: id}}, nil
		}
		if s.ignores {
			return s.answer, nil
		}
		arrived := s.arrived
		s.mu.Unlock()
		select {
		case <-arrived:
			s.mu.Lock()
		case <-until:
			s.mu.Lock()
			s.answer.WaitApplied = true
			return s.answer, nil
		case <-ctx.Done():
			s.mu.Lock()
			return poll.Answer{}, ctx.Err()
		}
	}
}

func (s *service) made() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.polls...)
}

// jobs is a handler whose jobs take a while, unless their context ends.
type jobs struct {
	takes time.Duration

	mu        sync.Mutex
	started   []string
	running   int
	most      int
	finished  []string
	cancelled []string
}

func (j *jobs) Handle(ctx context.Context, work api.AgentWorkflowDefinition) {
	j.mu.Lock()
	j.started = append(j.started, work.JobID)
	j.running++
	j.most = max(j.most, j.running)
	j.mu.Unlock()
	var cut bool
	select {
	case <-time.After(j.takes):
	case <-ctx.Done():
		cut = true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.running--
	if cut {
		j.cancelled = append(j.cancelled, work.JobID)
		return
	}
	j.finished = append(j.finished, work.JobID)
}

func (j *jobs) counts() (started, running, finished, cancelled int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.started), j.running, len(j.finished), len(j.cancelled)
}

// start runs a loop in the bubble. stop drains it, cancel cancels it; wait
// returns what Run returned.
func start(t *testing.T, o poll.Options, inHand ...func(context.Context)) (drain, cancel func(), wait func() error) {
	t.Helper()
	ctx, cancelCause := context.WithCancelCause(t.Context())
	stop, done := make(chan struct{}), make(chan error, 1)
	loop := poll.New(o)
	go func() { done <- loop.Run(ctx, stop, inHand...) }()
	var once sync.Once
	return func() { once.Do(func() { close(stop) }) },
		func() { cancelCause(errors.New("second signal")) },
		func() error {
			t.Helper()
			defer cancelCause(nil)
			return <-done
		}
}

func names(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("job-%d", i)
	}
	return ids
}

func TestNeverMoreJobsThanSlotsAndNoPollWithoutOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService(names(10)...), &jobs{takes: time.Minute}
		drain, _, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 3})
		synctest.Wait()
		if started, running, _, _ := j.counts(); started != 3 || running != 3 {
			t.Errorf("at once: %d started, %d running, want 3 and 3", started, running)
		}
		if got := len(s.made()); got != 3 {
			t.Errorf("%d polls with all slots in use, want the 3 that brought work", got)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if started, _, finished, _ := j.counts(); started != 10 || finished != 10 || j.most != 3 || s.most != 1 {
			t.Errorf("%d started, %d finished, at most %d jobs and %d polls at a time, want 10, 10, 3, 1", started, finished, j.most, s.most)
		}
		drain()
		if err := wait(); err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
}

func TestWorkOfBeforeTakesSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService(names(4)...), &jobs{takes: time.Minute}
		var before []func(context.Context)
		for i := range 3 {
			before = append(before, func(ctx context.Context) {
				j.Handle(ctx, api.AgentWorkflowDefinition{JobID: fmt.Sprintf("before-%d", i)})
				if i > 0 {
					j.Handle(ctx, api.AgentWorkflowDefinition{JobID: fmt.Sprintf("before-%d, once more", i)})
				}
			})
		}
		drain, _, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 2}, before...)
		time.Sleep(time.Minute + 30*time.Second) // one of the three has ended: both slots are in use
		synctest.Wait()
		if _, running, _, _ := j.counts(); running != 2 || len(s.made()) != 0 {
			t.Errorf("%d running and %d polls, want two jobs of before in two slots", running, len(s.made()))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, _, finished, _ := j.counts(); finished != 9 {
			t.Errorf("%d finished, want all", finished)
		}
		drain()
		if err := wait(); err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
}

func TestWorkIsClaimedTheMomentItArrives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService(), &jobs{takes: time.Second}
		drain, _, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 2})
		synctest.Wait()
		if got := s.made(); len(got) != 1 || !got[0].Equal(time.Now()) {
			t.Errorf("polls at start = %v, want one, at once", got)
		}
		time.Sleep(10*time.Minute + 7*time.Second)
		if got := len(s.made()); got != 11 {
			t.Errorf("%d polls in ten idle minutes, want 11: each held for a minute", got)
		}
		s.put("a", "b")
		synctest.Wait()
		if started, _, _, _ := j.counts(); started != 2 {
			t.Errorf("%d started, want both, without waiting", started)
		}
		drain()
		_ = wait()
	})
}

func TestAnUnhealthyPlaceIsNotPolledFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService("a"), &jobs{}
		began := time.Now()
		o := poll.Options{Source: s, Handler: j, Slots: 1, Checks: []poll.Check{{Reason: "target", Check: func(context.Context) error {
			if time.Since(began) < time.Hour {
				return errors.New("no engine")
			}
			return nil
		}}}}
		drain, _, wait := start(t, o)
		time.Sleep(time.Hour - time.Second)
		if got := len(s.made()); got != 0 {
			t.Errorf("%d polls of an agent that can start nothing, want 0", got)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if _, _, finished, _ := j.counts(); finished != 1 {
			t.Errorf("%d finished soon after the place was well again, want 1", finished)
		}
		drain()
		_ = wait()
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	t.Run("makes no new poll and lets work finish", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, j := newService("a", "b"), &jobs{takes: time.Hour}
			drain, _, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 2})
			synctest.Wait()
			polls := len(s.made())
			drain()
			s.put("c")
			if err := wait(); err != nil {
				t.Errorf("Run() = %v", err)
			}
			if _, _, finished, cancelled := j.counts(); finished != 2 || cancelled != 0 || len(s.made()) != polls {
				t.Errorf("%d finished, %d cancelled, %d polls after the drain, want 2, 0, 0", finished, cancelled, len(s.made())-polls)
			}
		})
	})
	t.Run("runs what the held poll still brings", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, j := newService(), &jobs{takes: time.Minute}
			drain, _, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 2})
			time.Sleep(20 * time.Second)
			drain()
			synctest.Wait()
			s.put("late")
			_ = wait()
			if _, _, finished, cancelled := j.counts(); finished != 1 || cancelled != 0 {
				t.Errorf("%d finished, %d cancelled, want the one that was claimed to finish", finished, cancelled)
			}
			if got := len(s.made()); got != 1 {
				t.Errorf("%d polls, want the one that was held", got)
			}
		})
	})
	t.Run("of an idle agent ends with the held poll", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService()
			drain, _, wait := start(t, poll.Options{Source: s, Handler: &jobs{}, Slots: 1, Wait: 30 * time.Second})
			time.Sleep(10 * time.Second)
			began := time.Now()
			drain()
			_ = wait()
			if took := time.Since(began); took != 20*time.Second {
				t.Errorf("drained in %v, want the 20s that were left of the held poll", took)
			}
		})
	})
	t.Run("does not wait for the next poll of a service that holds none", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService()
			s.ignores = true
			drain, _, wait := start(t, poll.Options{Source: s, Handler: &jobs{}, Slots: 1})
			time.Sleep(time.Second)
			began := time.Now()
			drain()
			_ = wait()
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("drained in %v, want at once", took)
			}
		})
	})
}

func TestCancelEndsPollAndWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService("a"), &jobs{takes: time.Hour}
		drain, cancel, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 2})
		synctest.Wait()
		began := time.Now()
		drain()
		cancel()
		if err := wait(); err != nil {
			t.Errorf("Run() = %v, want nil: it was ordered", err)
		}
		if _, _, _, cancelled := j.counts(); cancelled != 1 || time.Since(began) != 0 {
			t.Errorf("%d cancelled after %v, want 1 at once", cancelled, time.Since(began))
		}
	})
}

func TestARefusedTokenStopsTheLoopAndNotTheJobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService("a"), &jobs{takes: time.Hour}
		_, _, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 2})
		synctest.Wait()
		s.mu.Lock()
		s.err = fmt.Errorf("%w: 401", poll.ErrRefused)
		s.mu.Unlock()
		s.put()
		if err := wait(); !errors.Is(err, poll.ErrRefused) {
			t.Errorf("Run() = %v, want ErrRefused", err)
		}
		if _, _, finished, cancelled := j.counts(); finished != 1 || cancelled != 0 {
			t.Errorf("%d finished, %d cancelled, want the job in hand to finish", finished, cancelled)
		}
		if got := len(s.made()); got != 2 {
			t.Errorf("%d polls, want none after the refusal", got)
		}
	})
}

type crashing struct{ jobs *jobs }

func (c crashing) Handle(ctx context.Context, work api.AgentWorkflowDefinition) {
	if work.JobID == "bad" {
		panic("a bug")
	}
	c.jobs.Handle(ctx, work)
}

func TestACrashStaysInItsSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService("bad", "good"), &jobs{takes: time.Second}
		reg := prometheus.NewRegistry()
		drain, _, wait := start(t, poll.Options{Source: s, Handler: crashing{j}, Slots: 1, Metrics: poll.NewMetrics(reg)})
		time.Sleep(2 * time.Second)
		drain()
		_ = wait()
		if _, _, finished, _ := j.counts(); finished != 1 {
			t.Errorf("%d finished after a crash, want the slot to be free again", finished)
		}
		want := `
# HELP longshore_agent_slot_panics_total Jobs that crashed their slot. Every one of them is a bug.
# TYPE longshore_agent_slot_panics_total counter
longshore_agent_slot_panics_total 1
# HELP longshore_agent_slots_busy Jobs this agent has in hand.
# TYPE longshore_agent_slots_busy gauge
longshore_agent_slots_busy 0
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "longshore_agent_slot_panics_total", "longshore_agent_slots_busy"); err != nil {
			t.Error(err)
		}
	})
}
