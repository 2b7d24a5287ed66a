package workflow

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSilence(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit  time.Duration
		output []time.Duration // when some came
		want   time.Duration   // when it is too long, 0 for never
	}{
		"nothing at all comes":                {limit: 30 * time.Minute, want: 30 * time.Minute},
		"it counts from the last output":      {limit: 30 * time.Minute, output: []time.Duration{10 * time.Minute, 25 * time.Minute}, want: 55 * time.Minute},
		"output a moment before the limit":    {limit: time.Minute, output: []time.Duration{time.Minute - 1}, want: 2*time.Minute - 1},
		"output that never stops is no cause": {limit: time.Minute, output: everyHalfMinute(24 * time.Hour), want: 24*time.Hour + 30*time.Second},
		"no limit":                            {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := newSilence(c.limit, func() time.Duration {
					last := time.Duration(0)
					for _, at := range c.output {
						if at <= time.Since(began) {
							last = at
						}
					}
					return time.Since(began) - last
				})
				defer s.stop()
				end := time.After(1000 * time.Hour)
				for {
					select {
					case <-s.ticks():
						if s.tooLong() {
							if got := time.Since(began); got != c.want {
								t.Errorf("too long after %s, want %s", got, c.want)
							}
							return
						}
					case <-end:
						if c.want != 0 {
							t.Error("it is never too long")
						}
						return
					}
				}
			})
		})
	}
}

func everyHalfMinute(until time.Duration) (all []time.Duration) {
	for at := 30 * time.Second; at < until; at += 30 * time.Second {
		all = append(all, at)
	}
	return all
}

func TestOutputThatTheLogDoesNotTakeIsNoSilence(t *testing.T) {
	t.Parallel()
	p := &pump{began: time.Now().Add(-time.Hour)}
	if p.quiet() < time.Hour {
		t.Errorf("quiet for %s, want an hour", p.quiet())
	}
	p.writing.Store(true)
	if p.quiet() != 0 {
		t.Errorf("quiet for %s while output waits for the log", p.quiet())
	}
}
