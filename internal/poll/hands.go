package poll

import "sync"

// hands counts the work in hand.
type hands struct {
	mu sync.Mutex
	n  int
}

func (h *hands) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n += n
}

// Busy returns how many pieces of work are in hand. It may be called at any time.
func (l *Loop) Busy() int {
	l.hands.mu.Lock()
	defer l.hands.mu.Unlock()
	return l.hands.n
}
