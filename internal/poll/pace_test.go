package poll_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longshore-run/longshore/internal/poll"
)

// gaps polls an idle service that holds nothing for a while and returns the
// times between polls.
func gaps(t *testing.T, answer poll.Answer, err error, o poll.Options, during time.Duration) []time.Duration {
	t.Helper()
	s := newService()
	s.ignores, s.answer, s.err = true, answer, err
	o.Source, o.Handler, o.Slots = s, &jobs{}, 4
	drain, _, wait := start(t, o)
	time.Sleep(during)
	drain()
	_ = wait()
	var gaps []time.Duration
	polls := s.made()
	for i := range polls[1:] {
		gaps = append(gaps, polls[i+1].Sub(polls[i]))
	}
	return gaps
}

func TestTimeBetweenPolls(t *testing.T) {
	t.Parallel()
	away := errors.New("connection refused")
	for name, tc := range map[string]struct {
		answer   poll.Answer
		err      error
		o        poll.Options
		low, top time.Duration
	}{
		"is the interval, more or less":         {o: poll.Options{Interval: time.Minute}, low: 54 * time.Second, top: 66 * time.Second},
		"is what the service asks for, or more": {answer: poll.Answer{RetryAfter: 5 * time.Second}, low: 5 * time.Second, top: 5500 * time.Millisecond},
		"is ours, when it is to win":            {answer: poll.Answer{RetryAfter: 5 * time.Second}, o: poll.Options{IgnoreRetryAfter: true}, low: 54 * time.Second, top: 66 * time.Second},
		"is never absurdly long":                {answer: poll.Answer{RetryAfter: 1000 * time.Hour}, low: 15 * time.Minute, top: 17 * time.Minute},
		"is never absurdly short":               {answer: poll.Answer{RetryAfter: time.Nanosecond}, low: 200 * time.Millisecond, top: 220 * time.Millisecond},
		"is what an error asks for, too":        {answer: poll.Answer{RetryAfter: 7 * time.Second}, err: away, low: 7 * time.Second, top: 7700 * time.Millisecond},
		"is short when a poll is let go early":  {answer: poll.Answer{WaitApplied: true}, low: 500 * time.Millisecond, top: 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got := gaps(t, tc.answer, tc.err, tc.o, time.Hour)
				if len(got) == 0 {
					t.Fatal("only one poll")
				}
				for _, gap := range got {
					if gap < tc.low || gap > tc.top {
						t.Errorf("%v between two polls, want %v to %v", gap, tc.low, tc.top)
					}
				}
			})
		})
	}
}

func TestErrorsAreFollowedByLongerAndLongerWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := gaps(t, poll.Answer{}, errors.New("connection refused"), poll.Options{}, time.Hour)
		if got[0] > 2*time.Second {
			t.Errorf("%v before the first repetition, want a second or so", got[0])
		}
		for _, gap := range got {
			if gap > 3*time.Minute {
				t.Errorf("%v between two polls, want never more than 2m and jitter", gap)
			}
		}
		if last := got[len(got)-1]; last < time.Minute {
			t.Errorf("%v in the end, want to have backed off", last)
		}
	})
}

func TestAHerdSpreads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seconds := map[int64]int{}
		for range 100 {
			got := gaps(t, poll.Answer{}, nil, poll.Options{}, 2*time.Minute)
			seconds[int64(got[0]/time.Second)]++
		}
		for second, n := range seconds {
			if n > 30 {
				t.Errorf("%d of 100 agents poll again after %ds, want them spread over 12s", n, second)
			}
		}
	})
}

// TestAgentsReturnSpread: a service that was away, and ended the polls of all its
// agents in one moment, finds them spread over the interval.
func TestAgentsReturnSpread(t *testing.T) {
	t.Parallel()
	const agents, steady = 300, 300 / 60 // polls a second, each being held for a minute
	unreachable := func(s *service) { s.err = errors.New("connection reset") }
	for name, tc := range map[string]struct {
		vanish func(*service)
		away   time.Duration
	}{
		"from a restart":                     {unreachable, 500 * time.Millisecond},
		"from half a minute without it":      {unreachable, 30 * time.Second},
		"from ten minutes without it":        {unreachable, 10 * time.Minute},
		"when it lets go of them and goes":   {func(s *service) { s.ignores, s.answer.WaitApplied = true, true }, 300 * time.Millisecond},
		"when a proxy asks for five seconds": {func(s *service) { s.err, s.answer.RetryAfter = errors.New("503"), 5*time.Second }, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newService()
				var drains []func()
				var waits []func() error
				for range agents {
					drain, _, wait := start(t, poll.Options{Source: s, Handler: &jobs{}, Slots: 1})
					drains, waits = append(drains, drain), append(waits, wait)
				}
				time.Sleep(5*time.Minute + 30*time.Second) // all are held
				s.mu.Lock()
				tc.vanish(s)
				s.mu.Unlock()
				s.put() // ends what is held
				time.Sleep(tc.away)
				s.mu.Lock()
				s.err, s.ignores, s.answer = nil, false, poll.Answer{}
				before := len(s.polls)
				s.mu.Unlock()

				time.Sleep(10 * time.Second)
				if got := len(s.made()) - before; got > 3*10*steady {
					t.Errorf("%d polls in the first ten seconds, want at most three times the %d of quiet times", got, 10*steady)
				}
				time.Sleep(2 * time.Minute)
				s.mu.Lock()
				if s.open != agents {
					t.Errorf("%d agents are back two minutes later, want all %d", s.open, agents)
				}
				s.mu.Unlock()
				for i := range drains {
					drains[i]()
				}
				for i := range waits {
					_ = waits[i]()
				}
			})
		})
	}
}
