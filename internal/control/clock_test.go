package control_test

import (
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// TestAClockThatIsSetSilencesNobody sets the clock by an hour while a job beats
// every half minute and a claim is ten seconds old, and then lets another job
// fall silent for good.
func TestAClockThatIsSetSilencesNobody(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"forwards": time.Hour, "back": -time.Hour, "by a sleep of twenty minutes": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			pool := p.pool(t, "one")
			ref := func(name string) control.StackRef {
				return control.StackRef{Organization: org, Project: "shop", Stack: name}
			}
			alive, silent := p.create(t, ref("a"), simple), p.create(t, ref("b"), simple)
			_, beats := p.claim(t, pool)
			_, dies := p.claim(t, pool)
			step := func(d time.Duration) { // time goes by, in looks
				t.Helper()
				for ; d > 0; d -= 10 * time.Second {
					p.clock.Advance(10 * time.Second)
					must(t, p.Look(t.Context()))
					must(t, p.Heartbeat(t.Context(), beats, beats.JobID))
				}
			}
			must(t, p.Heartbeat(t.Context(), dies, dies.JobID))
			step(2 * control.DefaultHeartbeatTimeout / 3)
			claimed := p.create(t, ref("c"), simple)
			p.claim(t, pool)
			step(10 * time.Second)
			p.clock.Set(by)
			must(t, p.Look(t.Context()))
			step(10 * time.Second)
			for name, id := range map[string]string{"a": alive, "b": silent, "c": claimed} {
				if got := p.status(t, ref(name), id); got != api.StatusAccepted {
					t.Errorf("right after the clock was set %s is %s, want accepted", name, got)
				}
			}
			step(control.DefaultClaimTimeout)
			if got := p.status(t, ref("c"), claimed); got != api.StatusNotStarted {
				t.Errorf("the claim is %s after a fresh term, want not-started", got)
			}
			step(control.DefaultHeartbeatTimeout)
			if got := p.status(t, ref("b"), silent); got != api.StatusFailed {
				t.Errorf("the silent job is %s after a fresh term, want failed", got)
			}
			if got := p.status(t, ref("a"), alive); got != api.StatusAccepted {
				t.Errorf("the job that beats is %s, want accepted", got)
			}
			p.clock.Advance(control.DefaultHeartbeatTimeout + time.Second) // nobody set it: this counts
			must(t, p.Look(t.Context()))
			if got := p.status(t, ref("a"), alive); got != api.StatusFailed {
				t.Errorf("the job that no longer beats is %s, want failed", got)
			}
		})
	}
}
