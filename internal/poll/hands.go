package poll

import (
	"sync"
	"time"
)

// hands counts the work in hand.
type hands struct {
	mu    sync.Mutex
	n     int
	empty time.Time // since when n is 0
}

func (h *hands) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n += n
	h.empty = time.Now()
}

// idle returns for how long nothing has been in hand; 0 while something is.
func (h *hands) idle() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n > 0 {
		return 0
	}
	return time.Since(h.empty)
}

// Busy returns how many pieces of work are in hand. It may be called at any time.
func (l *Loop) Busy() int {
	l.hands.mu.Lock()
	defer l.hands.mu.Unlock()
	return l.hands.n
}

// untilIdle returns wait, or less when the loop will have been idle for long
// enough before it is over.
func (l *Loop) untilIdle(wait time.Duration) time.Duration {
	if l.o.IdleTimeout <= 0 || l.Busy() > 0 {
		return wait
	}
	return max(min(wait, l.o.IdleTimeout-l.hands.idle()), 0)
}

// idled reports whether the loop has been idle for long enough to end.
func (l *Loop) idled() bool {
	return l.o.IdleTimeout > 0 && l.hands.idle() >= l.o.IdleTimeout
}
