package logstream

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"go.uber.org/zap"
)

// batch is a run of lines of one step. The numbers of its lines are those before
// end, in the step's own count.
type batch struct {
	w      *Writer
	enc    api.LogEncoder
	text   int64 // bytes of the lines
	end    int64
	opened time.Time // when its first line came
	sealed time.Time // when it stopped growing
	gap    bool      // its one line says that others are missing

	lost int64 // so many lines, which it should have, are gone
	why  string
}

// lines is how many lines it stands for.
func (b *batch) lines() int64 {
	if b.lost > 0 {
		return b.lost
	}
	return int64(b.enc.Lines())
}

// start is the number of its first line, in the step's own count.
func (b *batch) start() int64 { return b.end - b.lines() }

// offset is where the batch starts in the service's count.
func (b *batch) offset() int64 { return b.start() + b.w.shift }

// queue holds sealed batches in order: those in memory, then those in the spool,
// then those in memory that came when the spool could take no more. It is
// guarded by the mutex of Streams.
type queue struct {
	memory int // bytes that may be kept in memory
	log    *zap.Logger

	first []*batch
	spool spool
	last  []*batch

	inHand *batch   // with the sender
	ahead  *batch   // comes after the one in hand: it was taken out, and lines before it are missing
	left   []*batch // what the sender had in hand at the end
	used   int      // bytes in memory, those of inHand and ahead included
	free   []*batch

	noDisk  time.Time // when the spool has failed last; zero while it works
	shedded bool      // something was dropped, and the program's log says so
}

const (
	// spillAfter is how long the oldest batch may have waited when memory is full,
	// and how long one request may take, before the service counts as too slow to
	// wait for.
	spillAfter = 500 * time.Millisecond
	// diskRetry is how long a disk that has failed is left alone.
	diskRetry = 10 * time.Second
)

// newBatch returns an empty batch, using the memory of one that is done.
func (q *queue) newBatch(w *Writer) *batch {
	b := &batch{}
	if n := len(q.free); n > 0 {
		b, q.free = q.free[n-1], q.free[:n-1]
	}
	b.w = w
	return b
}

// recycle keeps the memory of b for later.
func (q *queue) recycle(b *batch) {
	const keep, large = 8, 4 << 20
	if len(q.free) >= keep || cap(b.enc.Buffer()) > large {
		return
	}
	b.enc.Reset(b.enc.Buffer())
	*b = batch{enc: b.enc}
	q.free = append(q.free, b)
}

// push adds a sealed batch. It never refuses one: writers wait for room before
// they make any. With mayShed, what is too much is dropped from the middle;
// without, it may become a little too much.
func (q *queue) push(b *batch, mayShed bool) {
	q.used += b.enc.Size()
	if q.spool.len() == 0 && len(q.last) == 0 && q.used-b.enc.Size() < q.memory {
		q.first = append(q.first, b)
		return
	}
	q.last = append(q.last, b)
	for len(q.last) > 0 && q.canSpool() && (mayShed || q.spool.room()) {
		b := q.last[0]
		if err := q.spool.put(b); err != nil {
			if q.noDisk.IsZero() {
				q.log.Warn("cannot spool job logs, the job will wait for the service for a while instead: check space and permissions of the directory", zap.Error(err))
			}
			q.noDisk = time.Now()
			break
		}
		q.noDisk = time.Time{}
		q.last = q.last[1:]
		q.used -= b.enc.Size()
		q.recycle(b)
	}
	if q.spool.len() == 0 {
		q.first, q.last = append(q.first, q.last...), nil
	}
	if mayShed {
		q.shed()
	}
}

// shed drops from the middle what is too much, in the spool, or in memory where
// that is all there is.
func (q *queue) shed() {
	dropped := false
	for q.spool.bytes > q.spool.limit && q.spool.shed() {
		dropped = true
	}
	if !q.canSpool() {
		dropped = q.shedMemory() || dropped
	}
	if dropped && !q.shedded {
		q.shedded = true
		q.log.Warn("there is no more room for job logs: lines in the middle are dropped until the service takes some")
	}
}

func (q *queue) shedMemory() (dropped bool) {
	// Before the last lines are those of the spool; without those, the first half
	// of memory is the head.
	list, from, most := &q.last, 0, q.memory/2
	if len(q.last) == 0 {
		list, most = &q.first, q.memory
		for size := 0; from < len(q.first) && size < q.memory/2; from++ {
			size += q.first[from].enc.Size()
		}
	}
	size := 0
	for _, b := range *list {
		size += b.enc.Size()
	}
	for size > most && from < len(*list)-1 {
		b := (*list)[from]
		*list = slices.Delete(*list, from, from+1)
		size -= b.enc.Size()
		q.used -= b.enc.Size()
		b.w.shed += b.text
		q.recycle(b)
		dropped = true
	}
	return dropped
}

// canSpool reports whether there is a spool, and its disk works as far as is
// known.
func (q *queue) canSpool() bool {
	return q.spool.dir != "" && (q.noDisk.IsZero() || time.Since(q.noDisk) >= diskRetry)
}

// hold counts a batch that comes from elsewhere and goes straight to the sender.
func (q *queue) hold(b *batch) *batch {
	q.used += b.enc.Size()
	return q.follow(b)
}

// pop hands the oldest batch to the sender, or returns nil. What the spool
// cannot give back is a batch that says so.
func (q *queue) pop() *batch {
	if b := q.ahead; b != nil {
		q.ahead = nil
		return q.follow(b)
	}
	for {
		if len(q.first) == 0 && q.spool.len() == 0 {
			q.first, q.last = q.last, nil
		}
		var b *batch
		switch {
		case len(q.first) > 0:
			b = q.first[0]
			q.first = q.first[1:]
		case q.spool.len() > 0:
			b = q.newBatch(nil)
			lines, err := q.spool.get(b)
			if err != nil {
				q.log.Error("spooled job logs are damaged", zap.Int("lines", lines), zap.Error(err))
				b.lost, b.why = int64(lines), "their file in the spool is damaged"
			}
			q.used += b.enc.Size()
		default:
			return nil
		}
		if b.end > b.w.handed {
			return q.follow(b)
		}
		q.used -= b.enc.Size() // handed out before, by another process
		q.recycle(b)
	}
}

// follow hands out b, or what has to come before it: a line that says what is
// missing between b and the batch before.
func (q *queue) follow(b *batch) *batch {
	w := b.w
	before := b.enc.Size()
	switch missing := b.start() - w.handed; {
	case missing > 0:
		q.ahead = b
		b, before = q.newBatch(w), 0
		b.end, b.lost, b.why = w.handed+missing, missing, "they could not be kept"
		if w.shed > 0 {
			b.why = fmt.Sprintf("%d bytes for which there was no room while the service was away", w.shed)
			w.shed = 0
		}
	case missing < 0 && b.lost > 0:
		b.lost += missing
	case missing < 0:
		b.dropFirst(int(-missing))
	}
	if b.lost > 0 {
		b.missing(b.lost, b.why)
	}
	w.handed = b.end
	q.used += b.enc.Size() - before
	q.inHand = b
	return b
}

// done takes back the batch that the sender had in hand. Its size may have
// changed meanwhile; before is what it was when it was handed out. One that was
// not delivered is left.
func (q *queue) done(b *batch, before int, delivered bool) {
	q.inHand = nil
	q.used -= before
	if !delivered {
		q.left = append(q.left, b)
		return
	}
	q.shedded = q.shedded && q.spool.len() > 0
	if q.ahead == nil {
		q.spool.release()
	}
	q.recycle(b)
}

// oldest returns since when the oldest batch waits.
func (q *queue) oldest() time.Time {
	if q.inHand != nil {
		return q.inHand.sealed
	}
	if len(q.first) > 0 {
		return q.first[0].sealed
	}
	return time.Time{}
}

// keep leaves everything in the spool, what is in memory and open included.
func (q *queue) keep(open []*batch, writers []*Writer) error {
	front := q.left
	if q.ahead != nil {
		front = append(front, q.ahead)
	}
	front = slices.Concat(front, q.first)
	known := func(b *batch) bool { return b.lost > 0 && !b.gap } // the numbers say it
	err := q.spool.putFront(slices.DeleteFunc(front, known))
	for _, b := range slices.DeleteFunc(slices.Concat(q.last, open), known) {
		if err == nil {
			err = q.spool.put(b)
		}
	}
	q.spool.marks.complete = true
	for _, w := range writers {
		w.acknowledge(w.acked) // with what the sender knew at the end
		err = errors.Join(err, q.spool.note(w))
	}
	q.first, q.last, q.left, q.ahead, q.free, q.used = nil, nil, nil, nil, nil, 0
	return errors.Join(err, q.spool.leave())
}

// close drops everything.
func (q *queue) close() {
	q.first, q.last, q.left, q.ahead, q.free, q.used = nil, nil, nil, nil, nil, 0
	q.spool.close()
}
