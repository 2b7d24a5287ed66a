package control

import "time"

// lease is a term within which a kind of job must be heard of. What is written
// down of a job is wall time, because it outlives this process; so a lease must
// know when that time is worth nothing. It is, for one whole term, after the
// start of the process, when nobody could be heard, and after the clock was
// set, forwards or back, or stood still while the machine slept. It is used by
// one goroutine.
type lease struct {
	term time.Duration

	since   time.Duration // from when on silence counts, by the monotonic clock
	wall    time.Time     // both clocks at the last look
	elapsed time.Duration
}

// newLease returns a lease that begins now, which both clocks say.
func newLease(term time.Duration, wall time.Time, elapsed time.Duration) lease {
	return lease{term: term, since: elapsed, wall: wall, elapsed: elapsed}
}

// look reads both clocks. It reports whether silence counts, and by how much
// the wall clock was set since the last look. Less than a tenth of the term
// decides nothing and is let pass.
func (l *lease) look(wall time.Time, elapsed time.Duration) (counts bool, set time.Duration) {
	// Round takes the monotonic reading away: here it is the wall that matters.
	set = wall.Round(0).Sub(l.wall.Round(0)) - (elapsed - l.elapsed)
	l.wall, l.elapsed = wall, elapsed
	if set.Abs() < l.term/10 {
		set = 0
	} else {
		l.since = elapsed
	}
	return elapsed-l.since >= l.term, set
}

// over reports whether a job that was last heard of at beat is silent at now. A
// beat of the future is from before the clock was set back.
func (l *lease) over(beat, now time.Time) bool {
	return beat.Before(now.Add(-l.term)) || beat.After(now.Add(l.term))
}

// every is how often it is worth looking.
func (l *lease) every() time.Duration { return max(min(l.term/10, 15*time.Second), time.Millisecond) }
