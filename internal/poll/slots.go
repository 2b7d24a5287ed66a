package poll

import (
	"context"
	"sync"
)

// slots counts those that are left. There may be less than none: work that was
// begun before takes what it needs.
type slots struct {
	mu      sync.Mutex
	left    int
	changed chan struct{} // closed and replaced when one becomes free
}

func newSlots(n int) *slots { return &slots{left: n, changed: make(chan struct{})} }

// take takes a slot, whether there is one or not.
func (s *slots) take() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left--
}

// full reports whether none is left.
func (s *slots) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left <= 0
}

// free gives a slot back.
func (s *slots) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left++
	close(s.changed)
	s.changed = make(chan struct{})
}

// await takes a slot once there is one. It returns false when ctx ends first.
func (s *slots) await(ctx context.Context) bool {
	for {
		s.mu.Lock()
		if s.left > 0 && ctx.Err() == nil {
			s.left--
			s.mu.Unlock()
			return true
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
