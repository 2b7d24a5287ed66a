package workflow

import "time"

// silence watches for output that stays away for too long. It does nothing by
// itself: whoever has made one receives from ticks and asks tooLong.
type silence struct {
	limit time.Duration
	quiet func() time.Duration // for how long nothing has come
	timer *time.Timer
}

// newSilence returns a silence that needs a call of stop. A limit of 0 is none.
func newSilence(limit time.Duration, quiet func() time.Duration) *silence {
	s := &silence{limit: limit, quiet: quiet}
	if limit > 0 {
		s.timer = time.NewTimer(limit)
	}
	return s
}

// ticks returns when it is worth asking.
func (s *silence) ticks() <-chan time.Time {
	if s.timer == nil {
		return nil
	}
	return s.timer.C
}

// tooLong answers a tick: it reports whether the limit is reached, and sees to
// the next tick when it is not.
func (s *silence) tooLong() bool {
	left := s.limit - s.quiet()
	if left <= 0 {
		return true
	}
	s.timer.Reset(left)
	return false
}

func (s *silence) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}
