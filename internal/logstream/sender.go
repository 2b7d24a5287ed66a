package logstream

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/longshore-run/longshore/internal/api"
	"go.uber.org/zap"
)

// send delivers batches until the end.
func (s *Streams) send() {
	for b := s.take(); b != nil; b = s.take() {
		size := b.enc.Size()
		s.mu.Lock()
		s.lastSend = time.Now()
		s.mu.Unlock()
		delivered := s.deliver(b)

		s.mu.Lock()
		s.lastTook = time.Since(s.lastSend)
		s.queue.done(b, size, delivered)
		s.changed.Broadcast()
		s.mu.Unlock()
	}
}

// deliver sends b until the service has it. It returns false only at the end:
// when the service has refused the job, or Close has given up.
func (s *Streams) deliver(b *batch) bool {
	wait := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(s.o.RetryWait), backoff.WithMaxInterval(s.o.RetryMaxWait), backoff.WithMaxElapsedTime(0))
	for s.ctx.Err() == nil {
		err := s.o.Sink.RawLogs(s.ctx, b.w.index, b.enc.Body(b.offset()))
		if err == nil {
			s.accepted(b)
			return true
		}
		switch s.answer(b, err) {
		case settled:
			s.accepted(b)
			return true
		case changed:
			continue
		case refused:
			s.fail(err)
			return false
		}
		s.failed(err)
		s.pause(max(wait.NextBackOff(), retryAfter(err)))
	}
	return false
}

// verdict is what to do about an error.
type verdict int

const (
	again   verdict = iota // later, the same
	changed                // now, as the batch is now
	settled                // nothing, the service has these lines
	refused                // nothing, ever
)

// answer decides what to do about the error of one try, and changes b so that
// the next one fits.
func (s *Streams) answer(b *batch, err error) verdict {
	var e *api.Error
	if !errors.As(err, &e) {
		return again
	}
	switch e.Code {
	case http.StatusConflict:
		if e.ExpectedOffset == nil {
			return again
		}
		return s.resync(b, *e.ExpectedOffset)
	case http.StatusRequestEntityTooLarge:
		return s.halve(b, e)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return refused
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return again
	}
	if e.Code < 400 || e.Code >= 500 {
		return again
	}
	if b.gap {
		return refused
	}
	s.o.Log.Error("the service does not take a log batch", zap.Error(err), zap.Int("step", b.w.index), zap.Int("lines", b.enc.Lines()))
	b.replace(fmt.Sprintf("the service did not take them (%d)", e.Code))
	return changed
}

// resync makes b start at the line that the service expects.
func (s *Streams) resync(b *batch, want int64) verdict {
	have := b.offset()
	count := int64(b.enc.Lines())
	if b.w.blind {
		b.w.shift, b.w.blind = b.w.shift+want-have, false
		return changed
	}
	switch {
	case want == have:
		return again // it contradicts itself: give it time
	case want >= have+count:
		return settled
	case want > have:
		b.dropFirst(int(want - have))
		return changed
	}
	s.o.Log.Warn("the service has lost log lines", zap.Int("step", b.w.index), zap.Int64("lines", have-want))
	lines := b.decode()
	b.enc.Reset(b.enc.Buffer())
	b.enc.AppendString(time.Now(), gapText(have-want, s.lostWhy))
	for _, l := range lines {
		b.enc.AppendString(l.Time, l.Text)
	}
	b.w.shift += want - b.offset()
	return changed
}

// halve delivers the first half of b, so that b has only the other.
func (s *Streams) halve(b *batch, e *api.Error) verdict {
	s.mu.Lock()
	s.maxBatch = max(min(s.maxBatch, b.enc.Size()/2), 16<<10)
	s.mu.Unlock()
	lines := b.decode()
	half := len(lines) / 2
	if half == 0 {
		if b.gap {
			return refused
		}
		b.replace(fmt.Sprintf("the service finds it too large (%d)", e.Code))
		return changed
	}
	first := &batch{w: b.w, end: b.end - int64(len(lines)-half)}
	for _, l := range lines[:half] {
		first.add(l)
	}
	b.dropFirst(half)
	if !s.deliver(first) {
		s.mu.Lock()
		s.queue.left = append(s.queue.left, first)
		s.mu.Unlock()
	}
	return changed
}

// decode returns the lines of b.
func (b *batch) decode() []api.LogLine {
	all, err := api.DecodeLogBatch(b.enc.Body(0))
	if err != nil {
		panic("logstream: a batch of our own does not decode: " + err.Error())
	}
	return all.Lines
}

// dropFirst takes the first n lines out.
func (b *batch) dropFirst(n int) {
	lines := b.decode()[n:]
	b.enc.Reset(b.enc.Buffer())
	b.text = 0
	for _, l := range lines {
		b.add(l)
	}
}

func (b *batch) add(l api.LogLine) {
	b.enc.AppendString(l.Time, l.Text)
	b.text += int64(len(l.Text))
}

// replace puts one line that says why in the place of all lines of b.
func (b *batch) replace(why string) { b.missing(b.lines(), why) }

// missing makes b say that it had n lines, and why they are gone. The lines
// after them then have lower numbers with the service than with us.
func (b *batch) missing(n int64, why string) {
	b.gap, b.lost, b.text = true, 0, 0
	b.enc.Reset(b.enc.Buffer())
	b.add(api.LogLine{Time: time.Now(), Text: gapText(n, why)})
	b.w.shift += 1 - n
}

func gapText(lines int64, why string) string {
	return fmt.Sprintf("[longshore: %d lines of this log are missing: %s]\n", lines, why)
}

// accepted notes that the service has b.
func (s *Streams) accepted(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.w.acknowledge(b.end)
	s.stuck = time.Time{}
	_ = s.queue.spool.note(b.w) // without it, the service tells where it is
	if s.failing {
		s.failing, s.lastErr = false, nil
		s.o.Log.Info("the service takes job logs again")
	}
	s.changed.Broadcast()
}

// failed notes that a try has failed and will be repeated.
func (s *Streams) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	if !s.failing {
		s.o.Log.Warn("cannot deliver job logs, keeping them until the service takes them", zap.Error(err))
	}
	s.failing, s.lastErr = true, err
	s.changed.Broadcast() // writers need not wait for room any more
}

// pause waits, unless the end comes first.
func (s *Streams) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// retryAfter returns what the service asked for, within reason.
func retryAfter(err error) time.Duration {
	var e interface{ RetryAfter() time.Duration }
	if errors.As(err, &e) {
		return min(e.RetryAfter(), 15*time.Minute)
	}
	return 0
}
