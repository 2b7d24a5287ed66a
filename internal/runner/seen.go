package runner

import "sync"

// seen remembers the deployments that were started, the last so many.
type seen struct {
	mu    sync.Mutex
	known map[string]bool
	order []string
}

const seenSize = 10_000

// add reports whether id is new.
func (s *seen) add(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[id] {
		return false
	}
	if s.known == nil {
		s.known = map[string]bool{}
	}
	if len(s.order) >= seenSize {
		delete(s.known, s.order[0])
		s.order = s.order[1:]
	}
	s.known[id] = true
	s.order = append(s.order, id)
	return true
}

// inHand holds the ids of the jobs that a goroutine of this process sees to.
type inHand struct {
	mu   sync.Mutex
	jobs map[string]bool
}

func (h *inHand) add(jobID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.jobs == nil {
		h.jobs = map[string]bool{}
	}
	h.jobs[jobID] = true
}

func (h *inHand) remove(jobID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.jobs, jobID)
}

func (h *inHand) has(jobID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.jobs[jobID]
}
