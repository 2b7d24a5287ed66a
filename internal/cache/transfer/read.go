package transfer

import (
	"context"
	"io"
)

// segment is one range of an object, on its way.
type segment struct {
	offset int64
	under  *body // the answer that is under way already, or nil
	data   []byte
	err    error
	done   chan struct{}
}

// inParallel has d read an object that is downloaded in ranges, a few of them at
// a time. First is the answer of the first.
func (g *get) inParallel(ctx context.Context, d *Download, first *body) {
	ordered := make(chan *segment, g.o.Parallel+1)
	todo, spare := make(chan *segment), make(chan []byte, g.o.Parallel+1)
	for range g.o.Parallel + 1 { // one is being read while the others come
		spare <- nil
	}
	d.work.Go(func() {
		defer close(ordered)
		defer close(todo)
		for at := int64(0); at < g.version.size; at += g.o.Segment {
			s := &segment{offset: at, under: first, done: make(chan struct{})}
			first = nil
			if !g.hand(ctx, s, ordered, todo, spare) {
				if s.under != nil {
					s.under.close()
				}
				return
			}
		}
	})
	for range g.o.Parallel {
		d.work.Go(func() {
			for s := range todo {
				s.err = g.fill(ctx, s.data, s.offset, s.under)
				close(s.done)
			}
		})
	}
	d.read = (&inOrder{ctx: ctx, ordered: ordered, spare: spare, left: g.version.size}).read
}

// hand gives a segment memory, its place in the order, and to whoever is free.
// It reports whether it could.
func (g *get) hand(ctx context.Context, s *segment, ordered, todo chan<- *segment, spare <-chan []byte) bool {
	select {
	case s.data = <-spare:
	case <-ctx.Done():
		return false
	}
	n := min(g.o.Segment, g.version.size-s.offset)
	if int64(cap(s.data)) < n {
		s.data = make([]byte, n)
	}
	s.data = s.data[:n]
	select {
	case todo <- s:
	case <-ctx.Done():
		return false
	}
	ordered <- s // never full: there are no more of them than buffers
	return true
}

// inOrder hands out segments in their order.
type inOrder struct {
	ctx     context.Context
	ordered <-chan *segment
	spare   chan<- []byte
	now     *segment
	rest    []byte
	left    int64
	err     error
}

func (r *inOrder) read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		r.next()
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.left -= int64(n)
	return n, nil
}

// next waits for the next segment.
func (r *inOrder) next() {
	if r.now != nil {
		r.spare <- r.now.data
		r.now = nil
	}
	s, ok := <-r.ordered
	switch {
	case ok:
	case r.left > 0:
		r.err = context.Cause(r.ctx)
		return
	default:
		r.err = io.EOF
		return
	}
	<-s.done
	if r.err = s.err; r.err == nil {
		r.now, r.rest = s, s.data
	}
}

// asStream has d read an object as the server sends it, in one piece. When it
// breaks off, the server sends what is missing, or all of it once more.
func (g *get) asStream(ctx context.Context, d *Download, first *body) {
	at, now := int64(0), first
	var failed error
	d.read = func(p []byte) (int, error) {
		if failed != nil {
			return 0, failed
		}
		n := 0
		failed = g.o.persist(ctx, func(ctx context.Context) (moved bool, err error) {
			if now == nil {
				if now, err = g.again(ctx, at, -1); err != nil {
					return false, err
				}
				if _, err := io.CopyN(io.Discard, now, at-now.from); err != nil {
					err = now.why(err)
					now.close()
					now = nil
					return false, err
				}
			}
			n, err = now.Read(p)
			if n > 0 || err == nil {
				return true, nil
			}
			whole := g.version.size < 0 || at == g.version.size
			if err == io.EOF && whole { //nolint:errorlint // the body's own
				return true, nil
			}
			err = now.why(err)
			now.close()
			now = nil
			return false, err
		})
		at += int64(n)
		switch {
		case failed != nil:
			return n, failed
		case at > g.o.MaxSize:
			failed = ErrTooLarge
			return 0, failed
		case n == 0 && len(p) > 0:
			failed = io.EOF
			return 0, failed
		}
		return n, nil
	}
	d.end = func() {
		if now != nil {
			now.close()
		}
	}
}
