package gitsrc

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// progress writes lines for people: what must be said at once, and what the
// server reports while it works, at most once a second. It is also the sink of
// the server's own progress messages. Safe for concurrent use.
type progress struct {
	mu      sync.Mutex
	out     io.Writer
	mask    func(string) string
	prefix  string // of every line
	every   time.Duration
	last    time.Time
	partial []byte
	pending string
	shown   string
	bytes   int64
}

// line says something at once, after what is still unsaid.
func (p *progress) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flush()
	p.print(fmt.Sprintf(format, args...))
}

// Write takes the server's progress messages, whose lines end with a newline or
// a carriage return.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partial = append(p.partial, b...)
	for {
		i := bytes.IndexAny(p.partial, "\r\n")
		if i < 0 {
			break
		}
		if text := bytes.TrimSpace(p.partial[:i]); len(text) > 0 {
			p.pending = "remote: " + string(text)
		}
		p.partial = p.partial[i+1:]
	}
	if len(p.partial) > 4096 {
		p.partial = nil
	}
	p.maybe()
	return len(b), nil
}

// update says something that the next update may make old, at most once a
// second.
func (p *progress) update(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = text
	p.maybe()
}

// received counts n bytes of the pack.
func (p *progress) received(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += int64(n)
	if time.Since(p.last) >= p.every {
		p.flush()
		p.print(fmt.Sprintf("received %s", size(p.bytes)))
	}
}

func (p *progress) maybe() {
	if time.Since(p.last) >= p.every {
		p.flush()
	}
}

func (p *progress) flush() {
	if p.pending != "" && p.pending != p.shown {
		p.print(p.pending)
		p.shown = p.pending
	}
	p.pending = ""
}

func (p *progress) print(text string) {
	p.last = time.Now()
	if p.out != nil {
		fmt.Fprintln(p.out, p.prefix+p.mask(text))
	}
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
}
