package control

import (
	"slices"
	"sync"
	"time"
)

// waiting holds the polls that wait for work, by pool. One piece of work wakes
// one of them, the one that waits longest.
type waiting struct {
	mu    sync.Mutex
	pools map[string][]*waiter
	busy  map[string]bool // pools whose last look found work
}

// waiter is one poll that waits.
type waiter struct {
	pool string
	woke chan struct{} // of capacity 1
}

// join makes the poll wait. A caller joins first and looks for work then, so
// that nothing can slip through between.
func (w *waiting) join(pool string) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pools == nil {
		w.pools = map[string][]*waiter{}
	}
	one := &waiter{pool: pool, woke: make(chan struct{}, 1)}
	w.pools[pool] = append(w.pools[pool], one)
	return one
}

// found notes whether there was work for a pool.
func (w *waiting) found(pool string, work bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !work:
		delete(w.busy, pool)
	case w.busy == nil:
		w.busy = map[string]bool{pool: true}
	default:
		w.busy[pool] = true
	}
}

// likely guesses whether there is work for a pool.
func (w *waiting) likely(pool string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy[pool]
}

// rejoin makes a poll that was woken wait again.
func (w *waiting) rejoin(one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pools[one.pool] = append(w.pools[one.pool], one)
}

// wake wakes one poll of a pool.
func (w *waiting) wake(pool string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := w.pools[pool]
	if len(line) == 0 {
		return
	}
	line[0].woke <- struct{}{} // it is in line, so it has not been woken yet
	w.pools[pool] = line[1:]
}

// leave ends the waiting. A wake that the poll did not take up goes to the next.
func (w *waiting) leave(one *waiter) {
	w.mu.Lock()
	line := w.pools[one.pool]
	if i := slices.Index(line, one); i >= 0 {
		line = slices.Delete(line, i, i+1)
	}
	if len(line) == 0 {
		delete(w.pools, one.pool)
	} else {
		w.pools[one.pool] = line
	}
	w.mu.Unlock()
	select {
	case <-one.woke:
		w.wake(one.pool)
	default:
	}
}

// bells tell those who watch a deployment that its status changed.
type bells struct {
	mu sync.Mutex
	m  map[string]*bell
}

type bell struct {
	rung     chan struct{} // closed by ring
	watchers int
}

// watch returns a channel that is closed at the next change, and a function
// that ends the watching.
func (b *bells) watch(id string) (rung <-chan struct{}, done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		b.m = map[string]*bell{}
	}
	one := b.m[id]
	if one == nil {
		one = &bell{rung: make(chan struct{})}
		b.m[id] = one
	}
	one.watchers++
	return one.rung, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if one.watchers--; one.watchers == 0 && b.m[id] == one {
			delete(b.m, id)
		}
	}
}

func (b *bells) ring(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one := b.m[id]; one != nil {
		close(one.rung)
		delete(b.m, id)
	}
}

// presence remembers when agents were last written down, so that not every
// poll becomes a write.
type presence struct {
	mu   sync.Mutex
	last map[presenceKey]time.Time
}

type presenceKey struct {
	pool string
	AgentInfo
}

// presenceEvery is how often a polling agent is written down.
const presenceEvery = 15 * time.Second

// due reports whether an agent is to be written down now, and takes it that it
// will be.
func (p *presence) due(pool string, info AgentInfo, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[presenceKey]time.Time{}
	}
	key := presenceKey{pool, info}
	if last, ok := p.last[key]; ok && now.Sub(last) < presenceEvery {
		return false
	}
	p.last[key] = now
	return true
}

// forget drops what is older than before.
func (p *presence) forget(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, last := range p.last {
		if last.Before(before) {
			delete(p.last, key)
		}
	}
}
