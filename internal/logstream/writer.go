package logstream

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/redact"
)

// Writer takes the output of one step. It is safe for concurrent use, but what
// comes from several goroutines at once mixes wherever their writes are cut.
type Writer struct {
	s     *Streams
	index int

	mu   sync.Mutex // one Write at a time; taken before s.mu, never after
	mask *redact.Writer
	now  time.Time // of the Write in hand

	// The rest is guarded by s.mu.
	partial []byte // the beginning of a line, masked
	held    int    // bytes that mask holds back
	batch   *batch // open, or nil
	next    int64  // number of the next line
	handed  int64  // lines before it were handed to the sender
	acked   int64  // lines before it were accepted
	dropped bool   // something was written after the end
	shed    int64  // bytes that were dropped for want of room, and are not in the log as missing yet

	ackedShift int64 // shift and blind when acked was set
	ackedBlind bool

	// The sender's own, once there is a first batch.
	shift int64 // what the service's numbers have on top of ours
	blind bool  // shift is a guess, too high
}

// acknowledge notes that the service has the lines before end. It is for the
// sender, and for who comes after it.
func (w *Writer) acknowledge(end int64) {
	w.acked, w.ackedShift, w.ackedBlind = end, w.shift, w.blind
}

// mark is what another process has to know to go on.
func (w *Writer) mark() mark {
	return mark{acked: w.acked, shift: w.ackedShift, blind: w.ackedBlind, shed: w.shed, next: w.next}
}

func newWriter(s *Streams, index int) *Writer {
	w := &Writer{s: s, index: index}
	w.mask = redact.New(lines{w}, s.masks)
	return w
}

// Write takes output of the step. It always takes all of p and never fails: a
// step must not break because its log cannot be delivered. It may wait
// for room; doc.go says when.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = time.Now()
	_, _ = w.mask.Write(p) // lines takes everything
	w.noteHeld()
	return len(p), nil
}

// Line writes one or more whole lines of the program's own, masked, with a
// newline at the end. A line of the step that is not finished is ended first, so
// that the two do not mix. Line never waits for room.
func (w *Writer) Line(format string, args ...any) {
	text := w.s.masks.Mask(fmt.Sprintf(format, args...))
	now := time.Now()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.deaf() {
		w.dropped = true
		return
	}
	if len(w.partial) > 0 {
		w.partial = append(w.partial, '\n')
		w.add(now, w.partial)
		w.partial = w.partial[:0]
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		w.add(now, []byte(line+"\n"))
	}
}

// Close ends the step's output: what is left of its last line is sent as it is.
// Something may still be written afterwards, which starts a new line.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = time.Now()
	_ = w.mask.Flush() // lines takes everything
	w.noteHeld()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if len(w.partial) > 0 && !w.s.deaf() {
		w.add(w.now, w.partial)
		w.partial = w.partial[:0]
	}
	return nil
}

func (w *Writer) noteHeld() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.held = w.mask.Held()
}

// lines is what mask writes to: it cuts what is masked into lines.
type lines struct{ w *Writer }

func (l lines) Write(p []byte) (int, error) {
	w, n := l.w, len(p)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for len(p) > 0 {
		w.s.waitForRoom() // lets go of s.mu: nothing may be half done here
		if w.s.deaf() {
			w.dropped, w.partial = true, nil
			break
		}
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			w.partial = append(w.partial, p...)
			rest := w.addLong(w.now, w.partial)
			w.partial = w.partial[:copy(w.partial, rest)]
			break
		}
		line := p[:end]
		p = p[end:]
		if len(w.partial) > 0 {
			w.partial = append(w.partial, line...)
			line = w.partial
		}
		w.add(w.now, line)
		w.partial = w.partial[:0]
	}
	return n, nil
}

// add adds a line that is complete, in pieces if it is too long.
func (w *Writer) add(now time.Time, line []byte) {
	if rest := w.addLong(now, line); len(rest) > 0 {
		w.addPiece(now, rest)
	}
}

// addLong adds as many pieces of the longest allowed size as line has, and
// returns the rest.
func (w *Writer) addLong(now time.Time, line []byte) (rest []byte) {
	for len(line) > api.MaxLineBytes {
		n := cut(line)
		w.addPiece(now, line[:n])
		line = line[n:]
	}
	return line
}

// cut returns where to cut text, which is too long: inside no UTF-8 sequence if
// there is a sequence at all.
func cut(text []byte) int {
	for n := api.MaxLineBytes; n > api.MaxLineBytes-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			return n
		}
	}
	return api.MaxLineBytes
}

// addPiece adds a piece that is short enough, unless it grows: what is no UTF-8
// takes three bytes once it is.
func (w *Writer) addPiece(now time.Time, piece []byte) {
	clean := api.SanitizeLine(w.s.clean[:0], piece)
	if len(clean) > len(piece) {
		w.s.clean = clean
	}
	for len(clean) > api.MaxLineBytes {
		n := cut(clean)
		w.append(now, clean[:n])
		clean = clean[n:]
	}
	w.append(now, clean)
}

// append adds a line as it is to the open batch.
func (w *Writer) append(now time.Time, line []byte) {
	s := w.s
	if w.batch == nil {
		w.batch = s.queue.newBatch(w)
		w.batch.opened = now
		s.open = append(s.open, w)
		s.wakeSender()
	}
	small := w.batch.enc.Size() < s.o.FlushBytes
	w.batch.enc.Append(now, line)
	w.batch.text += int64(len(line))
	w.next++
	w.batch.end = w.next
	switch size := w.batch.enc.Size(); {
	case size >= s.maxBatch:
		b := w.batch
		w.batch = nil
		s.open = slices.DeleteFunc(s.open, func(o *Writer) bool { return o == w })
		b.sealed = time.Now()
		s.queue.push(b, s.mayShed(b.sealed))
		s.wakeSender()
	case small && size >= s.o.FlushBytes:
		s.wakeSender()
	}
}
