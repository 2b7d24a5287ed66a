package poll_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/poll"
)

func TestTheLoopEndsAfterSoManyClaims(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]int{"one": 1, "as many as there are slots": 2, "more than there are slots": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, j := newService(names(10)...), &jobs{takes: time.Minute}
				var reasons []string
				_, _, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 2, MaxJobs: most, Blocked: func(reason string, why error) {
					if why != nil {
						reasons = append(reasons, reason)
					}
				}})
				if err := wait(); err != nil {
					t.Errorf("Run() = %v", err)
				}
				if started, _, finished, _ := j.counts(); started != most || finished != most {
					t.Errorf("%d started, %d finished, want %d", started, finished, most)
				}
				if len(reasons) == 0 || reasons[len(reasons)-1] != poll.ReasonDraining {
					t.Errorf("it did not poll in the end because of %q, want %s", reasons, poll.ReasonDraining)
				}
			})
		})
	}
}

func TestTheLoopEndsWhenItWasIdleForLongEnough(t *testing.T) {
	t.Parallel()
	const limit = 10*time.Minute + 10*time.Second // no multiple of the time that polls are held
	away := func(s *service) { s.err = context.DeadlineExceeded }
	for name, tc := range map[string]struct {
		set   func(*service)
		queue []string
		o     poll.Options
		hand  []func(context.Context)
		want  time.Duration
	}{
		"from the start":                       {want: limit},
		"after its last job":                   {queue: names(3), want: 90*time.Minute + limit},
		"after a job of before":                {hand: []func(context.Context){func(context.Context) { time.Sleep(time.Hour) }}, want: time.Hour + limit},
		"of a service that holds no polls":     {set: func(s *service) { s.ignores = true }, want: limit},
		"of a service that is away":            {set: away, want: limit},
		"with a target that is not well":       {o: poll.Options{Checks: []poll.Check{{Reason: "target", Check: func(context.Context) error { return context.DeadlineExceeded }}}}, want: limit},
		"not before a poll of five hours ends": {o: poll.Options{Wait: 5 * time.Hour}, want: limit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, j := newService(tc.queue...), &jobs{takes: 90 * time.Minute}
				if tc.set != nil {
					tc.set(s)
				}
				o := tc.o
				o.Source, o.Handler, o.Slots, o.IdleTimeout = s, j, 3, limit
				began := time.Now()
				_, _, wait := start(t, o, tc.hand...)
				if err := wait(); err != nil {
					t.Errorf("Run() = %v", err)
				}
				took := time.Since(began)
				if took < tc.want || took > tc.want+time.Minute {
					t.Errorf("ended after %v, want %v, or a poll later", took, tc.want)
				}
				if started, _, finished, cancelled := j.counts(); finished != started || cancelled != 0 {
					t.Errorf("%d started, %d finished, %d cancelled", started, finished, cancelled)
				}
			})
		})
	}
}

// TestAnIdleLoopRunsWhatItsLastPollBrings: the poll that is held when a loop has
// been idle for long enough may be a claim.
func TestAnIdleLoopRunsWhatItsLastPollBrings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService(), &jobs{takes: time.Hour}
		_, _, wait := start(t, poll.Options{Source: s, Handler: j, Slots: 1, IdleTimeout: time.Minute})
		time.Sleep(time.Minute - time.Nanosecond)
		s.put("late")
		_ = wait()
		if _, _, finished, _ := j.counts(); finished != 1 {
			t.Errorf("%d finished, want the one that came in the last moment", finished)
		}
	})
}

func TestBusyCountsAllWorkInHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService(names(2)...), &jobs{takes: time.Minute}
		loop := poll.New(poll.Options{Source: s, Handler: j, Slots: 3, MaxJobs: 2})
		done := make(chan error, 1)
		go func() {
			done <- loop.Run(t.Context(), nil, func(ctx context.Context) { j.Handle(ctx, api.AgentWorkflowDefinition{JobID: "before"}) })
		}()
		synctest.Wait()
		if got := loop.Busy(); got != 3 {
			t.Errorf("Busy() = %d, want 3", got)
		}
		<-done
		if got := loop.Busy(); got != 0 {
			t.Errorf("Busy() = %d in the end", got)
		}
	})
}
