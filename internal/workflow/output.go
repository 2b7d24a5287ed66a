package workflow

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// How long the output of a step is read on after its shell ended, when some
// other process still holds it open: until nothing came for quietTime, and no
// longer than lingerTime. What the shell itself wrote is always read.
const (
	quietTime  = 250 * time.Millisecond
	lingerTime = 2 * time.Second
)

// pump carries the output of one step from a pipe to its log.
type pump struct {
	in      *os.File
	out     io.Writer
	read    atomic.Int64
	writing atomic.Bool
	began   time.Time
	last    atomic.Int64  // when the log took the last output, as a time.Duration since began
	done    chan struct{} // closed when copying ended
	open    bool          // valid after done: somebody still holds the other end
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

func startPump(in *os.File, out io.Writer) *pump {
	p := &pump{in: in, out: out, began: time.Now(), done: make(chan struct{})}
	go p.run()
	return p
}

// run ends at the end of the pipe or at a read deadline, whichever comes first.
// A log that fails does not stop the step: reading goes on.
func (p *pump) run() {
	defer close(p.done)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := p.in.Read(*buf)
		if n > 0 {
			p.writing.Store(true)
			_, _ = p.out.Write((*buf)[:n])
			p.read.Add(int64(n))
			p.last.Store(int64(time.Since(p.began)))
			p.writing.Store(false)
		}
		if err != nil {
			p.open = errors.Is(err, os.ErrDeadlineExceeded)
			return
		}
	}
}

// quiet returns for how long no output has come. While the log does not take
// what came, more may be waiting: then it is not the step that is quiet.
func (p *pump) quiet() time.Duration {
	if p.writing.Load() {
		return 0
	}
	return time.Since(p.began) - time.Duration(p.last.Load())
}

// finish waits for the rest of the output after the shell ended. It reports
// whether another process still holds the output open.
func (p *pump) finish() (open bool) {
	must := p.read.Load() + int64(p.waiting())
	start := time.Now()
	tick := time.NewTicker(quietTime / 2)
	defer tick.Stop()
	for seen, quiet := int64(-1), 0; ; {
		select {
		case <-p.done:
			return p.open
		case <-tick.C:
		}
		now := p.read.Load()
		if now == seen && !p.writing.Load() {
			quiet++
		} else {
			quiet = 0
		}
		seen = now
		if quiet >= 2 || (time.Since(start) > lingerTime && now >= must) {
			_ = p.in.SetReadDeadline(time.Unix(1, 0))
			<-p.done
			return p.open
		}
	}
}

// waiting returns how much of the output is in the pipe.
func (p *pump) waiting() (n int) {
	if raw, err := p.in.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n = unread(fd) })
	}
	return n
}

// discard reads and drops what a process in the background goes on printing, so
// that it does not die of a broken pipe. It returns when in is closed or ends.
func discard(in *os.File) {
	_ = in.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, struct{ io.Reader }{in})
}
