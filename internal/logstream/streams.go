package logstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/redact"
	"go.uber.org/zap"
)

// Sink delivers one encoded api.LogBatch with one try. *client.Job is one.
//
// It must not keep or read body after it returned. An *api.Error in its error
// says that the service answered: 409 with ExpectedOffset, 413, and refusals are
// understood; anything else is tried again. An error with a method
// RetryAfter() time.Duration says when.
type Sink interface {
	RawLogs(ctx context.Context, step int, body []byte) error
}

// SinkFunc makes a Sink of a function that takes decoded batches.
type SinkFunc func(ctx context.Context, step int, b api.LogBatch) error

// RawLogs decodes body and calls f.
func (f SinkFunc) RawLogs(ctx context.Context, step int, body []byte) error {
	b, err := api.DecodeLogBatch(body)
	if err != nil {
		return err
	}
	return f(ctx, step, b)
}

// Options configure Streams. Only Sink is required.
type Options struct {
	Sink    Sink
	Secrets []string // masked in every line; more can be added later

	FlushInterval time.Duration // the longest a line waits for others; default 250ms
	FlushBytes    int           // size of a batch that does not wait; default 256 KiB
	BatchBytes    int           // to which it may grow while the sender is busy; default 1 MiB
	MemoryBytes   int           // of batches kept in memory; default 4 MiB
	SpoolDir      string        // where batches go that memory has no room for, for them alone, made when needed; empty: there is none
	SpoolCap      int64         // most bytes on disk; the middle goes when there are more; default 256 MiB
	Patience      time.Duration // how long writers wait for room when memory is full and there is no spool, or its disk fails; default 30s

	RetryWait    time.Duration // before the first resend, growing from there; default 200ms
	RetryMaxWait time.Duration // default 10s

	Log *zap.Logger // of the program, not of the job; default: nothing is logged
}

func (o Options) withDefaults() Options {
	set(&o.FlushInterval, 250*time.Millisecond)
	set(&o.FlushBytes, 256<<10)
	set(&o.BatchBytes, max(1<<20, o.FlushBytes))
	set(&o.MemoryBytes, 4<<20)
	set(&o.SpoolCap, 256<<20)
	set(&o.Patience, 30*time.Second)
	set(&o.RetryWait, 200*time.Millisecond)
	set(&o.RetryMaxWait, 10*time.Second)
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o
}

func set[T ~int | ~int64](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

// errClosed is the cause of what Close cuts off.
var errClosed = errors.New("log stream closed")

// Streams carries the logs of one job. It is safe for concurrent use. Whoever
// makes one must Close it.
type Streams struct {
	o      Options
	masks  *redact.Set
	ctx    context.Context // ends when Close gives up, or is done
	cancel context.CancelCauseFunc
	kick   chan struct{} // wakes the sender
	done   chan struct{} // closed when the sender has ended

	mu       sync.Mutex
	changed  *sync.Cond // room in memory, lines accepted, or the end
	steps    map[int]*Writer
	open     []*Writer // that have an open batch
	queue    queue
	maxBatch int // BatchBytes, until the service finds that too large
	flushing int // calls of Flush that wait
	failing  bool
	lastErr  error         // of the last try, while failing
	lastSend time.Time     // when the sender got what it has, or had, in hand
	lastTook time.Duration // how long it had the last batch in hand
	stuck    time.Time     // since when writers wait and nothing was accepted; zero when they do not
	resumed  int64         // lines that Resume found
	lostWhy  string        // why the service may lack lines that are no longer held
	clean    []byte        // scratch

	over    bool  // nothing is sent any more
	closed  bool  // what was left is in the spool
	err     error // why, if the service said so
	stopped chan struct{}
}

// New returns Streams and starts its sender, which Close ends.
func New(o Options) *Streams {
	s := newStreams(o)
	s.start()
	return s
}

func newStreams(o Options) *Streams {
	s := &Streams{
		o:       o.withDefaults(),
		masks:   redact.NewSet(o.Secrets...),
		kick:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		steps:   map[int]*Writer{},
		stopped: make(chan struct{}),
		lostWhy: "the service no longer has them",
	}
	s.changed = sync.NewCond(&s.mu)
	s.maxBatch = s.o.BatchBytes
	s.queue = queue{memory: s.o.MemoryBytes, spool: spool{dir: s.o.SpoolDir, limit: s.o.SpoolCap}, log: s.o.Log}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

func (s *Streams) start() {
	go func() {
		defer close(s.done)
		s.send()
	}()
}

// Step returns the Writer of a step, always the same for the same index.
func (s *Streams) Step(index int) *Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.steps[index]
	if w == nil {
		w = newWriter(s, index)
		s.steps[index] = w
	}
	return w
}

// Continue is Step for a step to which another process may have written before,
// such as the agent that this one takes over from: its lines come after those.
// It needs a service that refuses a batch that is too far on with the number of
// the line it expects, as Longshore's does. It must be the first call for index.
func (s *Streams) Continue(index int) *Writer {
	w := s.Step(index)
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.next == 0 {
		w.shift, w.blind = 1<<40, true
		w.acknowledge(0)
	}
	return w
}

// AddSecret masks further values in everything that is written from now on.
func (s *Streams) AddSecret(values ...string) { s.masks.Add(values...) }

// Flush returns when every whole line written so far was accepted by the
// service, when delivery has stopped for good (then with Err), or when ctx ends.
func (s *Streams) Flush(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.wake)()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushing++
	defer func() { s.flushing-- }()
	s.wakeSender()

	until := map[*Writer]int64{}
	for _, w := range s.steps {
		until[w] = w.next
	}
	for {
		left := int64(0)
		for w, next := range until {
			left += max(next-w.acked, 0)
		}
		switch {
		case left == 0:
			return nil
		case s.err != nil:
			return s.undelivered(left, s.err)
		case s.over:
			return errClosed
		case ctx.Err() != nil:
			return s.undelivered(left, context.Cause(ctx))
		}
		s.changed.Wait()
	}
}

func (s *Streams) undelivered(lines int64, cause error) error {
	if s.lastErr != nil && s.err == nil {
		return fmt.Errorf("deliver %d log lines: %w, the last try ended with: %w", lines, cause, s.lastErr)
	}
	return fmt.Errorf("deliver %d log lines: %w", lines, cause)
}

// Close ends the last line of every step, delivers everything, stops the sender
// and removes the spool. When ctx ends first, it says so and leaves what was not
// delivered in the spool, for Resume; without a spool, or when the service has
// refused the job, it is dropped. What is written later is dropped. Close may be
// called again.
func (s *Streams) Close(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.abandon)() // frees a writer that waits for room
	s.mu.Lock()
	var all []*Writer
	for _, w := range s.steps {
		all = append(all, w)
	}
	s.mu.Unlock()
	for _, w := range all {
		_ = w.Close()
	}
	err := s.Flush(ctx)
	if errors.Is(err, errClosed) && ctx.Err() != nil {
		err = s.leftBehind(context.Cause(ctx))
	} else if errors.Is(err, errClosed) {
		err = nil // an earlier Close has reported what was left
	}
	s.abandon()
	<-s.done
	return errors.Join(err, s.finish())
}

// finish leaves what was not delivered in the spool, or removes that.
func (s *Streams) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var open []*batch
	var undelivered []*Writer
	for _, w := range s.steps {
		if w.batch != nil {
			open = append(open, w.batch)
			w.batch = nil
		}
		if w.acked < w.next {
			undelivered = append(undelivered, w)
		}
	}
	s.open = nil
	if len(undelivered) == 0 || s.err != nil || s.o.SpoolDir == "" {
		s.queue.close()
		return nil
	}
	if err := s.queue.keep(open, undelivered); err != nil {
		return fmt.Errorf("keep what was not delivered in %s: %w", s.o.SpoolDir, err)
	}
	return nil
}

func (s *Streams) leftBehind(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left int64
	for _, w := range s.steps {
		left += w.next - w.acked
	}
	if left == 0 {
		return nil
	}
	return s.undelivered(left, cause)
}

// Delivered reports whether the service has accepted everything written so far,
// unfinished lines included.
func (s *Streams) Delivered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.steps {
		if w.acked < w.next || w.held > 0 || len(w.partial) > 0 || w.dropped {
			return false
		}
	}
	return true
}

// Err returns why delivery has stopped for good: the service refused the job
// (401, 403, 404, 410). It is nil while there is hope.
func (s *Streams) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stopped is closed when delivery stops for good: Err then says why. Writers go
// on taking output, and drop it.
func (s *Streams) Stopped() <-chan struct{} { return s.stopped }

// deaf reports whether lines are dropped: they could neither be sent nor kept.
func (s *Streams) deaf() bool { return s.closed || s.err != nil }

// abandon ends all sending.
func (s *Streams) abandon() {
	s.cancel(errClosed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.changed.Broadcast()
	s.wakeSender()
}

// fail ends all work because the service will never take another batch.
func (s *Streams) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.o.Log.Warn("log delivery stopped, the service refuses this job's logs", zap.Error(err))
	s.over, s.err = true, err
	s.cancel(err)
	close(s.stopped)
	s.open = nil
	s.queue.close()
	s.changed.Broadcast()
}

// wake lets everybody who waits look again.
func (s *Streams) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// wakeSender makes the sender look again.
func (s *Streams) wakeSender() {
	select {
	case s.kick <- struct{}{}:
	default: // it will look anyway
	}
}

// take returns the next batch to send, waiting for one, or nil at the end.
func (s *Streams) take() *batch {
	for {
		s.mu.Lock()
		if s.over {
			s.mu.Unlock()
			return nil
		}
		b, wait := s.due(time.Now())
		s.mu.Unlock()
		if b != nil {
			return b
		}
		s.waitForWork(wait)
	}
}

func (s *Streams) waitForWork(d time.Duration) {
	var after <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-s.kick:
	case <-after:
	case <-s.ctx.Done():
	}
}

// due returns the oldest batch that should be sent now, or how long to wait for
// one to become due, 0 meaning that there is none.
func (s *Streams) due(now time.Time) (*batch, time.Duration) {
	if b := s.queue.pop(); b != nil {
		return b, 0
	}
	var wait time.Duration
	for i, w := range s.open {
		left := s.linger(w.batch, now)
		if left <= 0 {
			b := w.batch
			w.batch = nil
			s.open = slices.Delete(s.open, i, i+1)
			b.sealed = now
			return s.queue.hold(b), 0
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return nil, wait
}

// linger returns how long b should wait for more lines. The first line after a
// silence goes almost at once: only those that follow it wait for company.
func (s *Streams) linger(b *batch, now time.Time) time.Duration {
	if s.flushing > 0 || b.enc.Size() >= s.o.FlushBytes {
		return 0
	}
	at := b.opened.Add(s.o.FlushInterval / 10)
	if next := s.lastSend.Add(s.o.FlushInterval); next.After(at) {
		at = next
	}
	if last := b.opened.Add(s.o.FlushInterval); at.After(last) {
		at = last
	}
	return at.Sub(now)
}
