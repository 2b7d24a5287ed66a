package telemetry

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// Health is what a program knows of its own state. Its methods may be called
// concurrently.
//
// Healthy means that the program still gets something done: its last sign of
// activity is younger than a threshold. Ready means that it could take on new
// work now. A program that waits for a service to come back is healthy for the
// threshold and not ready from the first moment on.
type Health struct {
	threshold time.Duration

	mu       sync.Mutex
	last     time.Time
	blockers map[string]string // what is wrong, by part
	notes    map[string]string // what else there is to say, by part
}

// NewHealth returns a Health that counts this moment as activity. A threshold
// of 0 means that age alone never makes it unhealthy.
func NewHealth(threshold time.Duration) *Health {
	return &Health{threshold: threshold, last: time.Now(), blockers: map[string]string{}, notes: map[string]string{}}
}

// Active notes a sign of activity, such as an answer of the service.
func (h *Health) Active() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Now()
}

// Set notes the state of one part: nil when it is fine, else what is wrong.
func (h *Health) Set(part string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.blockers, part)
		return
	}
	h.blockers[part] = err.Error()
}

// LastActivity returns when Active was called last.
func (h *Health) LastActivity() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// Healthy returns nil, or why the program should be restarted.
func (h *Health) Healthy() error {
	if age := time.Since(h.LastActivity()); h.threshold > 0 && age > h.threshold {
		return errors.New("nothing has happened for " + age.Round(time.Second).String())
	}
	return nil
}

// Reasons says, sorted, why the program is not ready; it is when there are none.
func (h *Health) Reasons() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return list(h.blockers)
}

// Note says something about a part that explains what the program does and is no
// reason against its readiness; nil takes it back.
func (h *Health) Note(part string, what error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if what == nil {
		delete(h.notes, part)
		return
	}
	h.notes[part] = what.Error()
}

// Notes returns, sorted, what was noted.
func (h *Health) Notes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return list(h.notes)
}

func list(parts map[string]string) []string {
	texts := []string{}
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		texts = append(texts, part+": "+parts[part])
	}
	return texts
}
