package logstream

import (
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"go.uber.org/zap"
)

// batch is a run of lines of one step. The numbers of its lines are those before
// end, in the step's own count.
type batch struct {
	w      *Writer
	enc    api.LogEncoder
	end    int64
	opened time.Time // when its first line came
	sealed time.Time // when it stopped growing
	gap    bool      // its one line says that others are missing
}

// offset is where the batch starts in the service's count.
func (b *batch) offset() int64 { return b.end - int64(b.enc.Lines()) + b.w.shift }

// queue holds sealed batches in order: those in memory, then those in the spool,
// then those in memory that came when the spool could take no more. It is
// guarded by the mutex of Streams.
type queue struct {
	memory int // bytes that may be kept in memory
	log    *zap.Logger

	first []*batch
	spool spool
	last  []*batch

	inHand *batch // with the sender
	used   int    // bytes in memory, inHand included
	noDisk bool   // the spool has failed; tried again once it is empty
	free   []*batch
}

// spillAfter is how long the oldest batch may have waited when memory is full,
// before the service counts as too slow to wait for.
const spillAfter = 500 * time.Millisecond

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
// they make any.
func (q *queue) push(b *batch) {
	spilling := q.spool.len() > 0
	full := q.used >= q.memory // writers have seen that too, and decided not to wait
	if len(q.last) == 0 && (spilling || full) && q.canSpool() {
		err := q.spool.put(b)
		if err == nil {
			q.recycle(b)
			return
		}
		q.noDisk = true
		q.log.Warn("cannot spool job logs, the job will wait for the service instead: check space and permissions of the directory", zap.Error(err))
	}
	q.used += b.enc.Size()
	if spilling || len(q.last) > 0 {
		q.last = append(q.last, b)
	} else {
		q.first = append(q.first, b)
	}
}

func (q *queue) canSpool() bool { return !q.noDisk && q.spool.room() }

// hold counts a batch that goes straight to the sender.
func (q *queue) hold(b *batch) {
	q.inHand = b
	q.used += b.enc.Size()
}

// pop hands the oldest batch to the sender, or returns nil. What the spool
// cannot give back is a batch that says so.
func (q *queue) pop() *batch {
	if len(q.first) == 0 && q.spool.len() == 0 {
		q.first, q.last, q.noDisk = q.last, nil, false
	}
	if len(q.first) > 0 {
		b := q.first[0]
		q.first = q.first[1:]
		q.inHand = b
		return b
	}
	if q.spool.len() == 0 {
		return nil
	}
	b := q.newBatch(nil)
	lines, err := q.spool.get(b)
	if err != nil {
		q.log.Error("spooled job logs are damaged", zap.Int("lines", lines), zap.Error(err))
		b.missing(lines, "their file in the spool is damaged")
	}
	q.hold(b)
	return b
}

// done takes back the batch that the sender had in hand. Its size may have
// changed meanwhile; before is what it was when it was handed out.
func (q *queue) done(b *batch, before int) {
	q.inHand = nil
	q.used -= before
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

// close drops everything.
func (q *queue) close() {
	q.first, q.last, q.free, q.used = nil, nil, nil, 0
	q.spool.close()
}

// waitForRoom returns when a line may be added. It gives s.mu away while it
// waits.
func (s *Streams) waitForRoom() {
	for s.queue.used >= s.o.MemoryBytes && !s.over {
		var patience *time.Timer
		if s.queue.canSpool() {
			age := time.Since(s.queue.oldest())
			if s.failing || s.queue.spool.len() > 0 || age >= spillAfter {
				return
			}
			patience = time.AfterFunc(spillAfter-age, s.wake)
		}
		s.changed.Wait()
		if patience != nil {
			patience.Stop()
		}
	}
}
