package logstream

import "time"

// waitForRoom returns when a line may be added. It gives s.mu away while it
// waits.
func (s *Streams) waitForRoom() {
	for s.queue.used >= s.o.MemoryBytes && !s.over {
		wait := s.patience(time.Now())
		if wait <= 0 {
			return
		}
		timer := time.AfterFunc(wait, s.wake)
		s.changed.Wait()
		timer.Stop()
	}
}

// patience returns how long a writer should wait for room in memory before it
// goes on all the same.
func (s *Streams) patience(now time.Time) time.Duration {
	switch q := &s.queue; {
	case !q.canSpool():
		if s.stuck.IsZero() {
			s.stuck = now
		}
		return s.o.Patience - now.Sub(s.stuck)
	case s.failing:
		return 0
	case !q.spool.room(): // a service that keeps up makes some soon
		return s.slowIn(now)
	case q.spool.len() > 0:
		return 0
	default:
		return min(s.slowIn(now), spillAfter-now.Sub(q.oldest()))
	}
}

// mayShed reports whether what there is no room for may be dropped: nobody would
// wait for room any more.
func (s *Streams) mayShed(now time.Time) bool {
	if !s.queue.canSpool() {
		return !s.stuck.IsZero() && now.Sub(s.stuck) >= s.o.Patience
	}
	return s.failing || s.slowIn(now) <= 0
}

// slowIn returns after how much more time the service counts as slow, because it
// does not answer.
func (s *Streams) slowIn(now time.Time) time.Duration {
	switch {
	case s.lastTook >= spillAfter:
		return 0
	case s.queue.inHand != nil:
		return spillAfter - now.Sub(s.lastSend)
	}
	return spillAfter
}
