package redact

import "io"

// Writer masks what is written to it and passes it on. It holds back only what
// may be the beginning of a secret, never more than the longest needle of its
// Set. It is not safe for concurrent use.
type Writer struct {
	to  io.Writer
	set *Set

	held   []byte // what may begin a secret
	masked int    // bytes at the start of held that a Mask already stands for
	out    []byte
}

// New returns a Writer that masks the secrets of s, and those added to s later,
// in what it passes on to w.
func New(w io.Writer, s *Set) *Writer { return &Writer{to: w, set: s} }

// chunk bounds what is copied at once.
const chunk = 64 << 10

// Write masks p and passes it on in as few writes as possible; when nothing
// needs masking, p itself. It always takes all of p; its error is that of the
// underlying writer.
func (w *Writer) Write(p []byte) (int, error) {
	m := w.set.current.Load()
	if m.longest == 0 && len(w.held) == 0 {
		return w.to.Write(p)
	}
	for rest := p; len(rest) > 0; {
		part := rest[:min(len(rest), chunk)]
		rest = rest[len(part):]
		if err := w.write(m, part); err != nil {
			return len(p) - len(rest), err
		}
	}
	return len(p), nil
}

func (w *Writer) write(m *matcher, part []byte) error {
	if len(w.held) == 0 {
		keep, err := w.scan(m, part, false)
		w.held = append(w.held, part[keep:]...)
		return err
	}
	w.held = append(w.held, part...)
	return w.rescan(m, false)
}

// Flush passes on what is held back: nothing follows that could complete it.
func (w *Writer) Flush() error {
	if len(w.held) == 0 {
		return nil
	}
	return w.rescan(w.set.current.Load(), true)
}

// Held returns how many bytes are held back.
func (w *Writer) Held() int { return len(w.held) }

func (w *Writer) rescan(m *matcher, final bool) error {
	keep, err := w.scan(m, w.held, final)
	w.held = w.held[:copy(w.held, w.held[keep:])]
	return err
}

// scan passes on what can be decided of text, which starts with what was held,
// and returns how many bytes that are. The rest begins at a position where a
// needle may still grow; with final there is no rest.
func (w *Writer) scan(m *matcher, text []byte, final bool) (int, error) {
	end := w.masked // text before it is behind a Mask
	plain := end    // text from here on has not been passed on
	keep := len(text)
	out := w.out[:0]
	m.candidates(text, func(pos int) bool {
		length, more := m.at(text[pos:])
		if length > 0 {
			if pos >= end {
				out = append(append(out, text[plain:pos]...), Mask...)
			}
			end = max(end, pos+length)
			plain = end
		}
		if more && !final {
			keep = pos
			return false
		}
		return true
	})
	w.out = out
	w.masked = max(end-keep, 0)
	switch {
	case len(out) == 0 && plain < keep:
		_, err := w.to.Write(text[plain:keep])
		return keep, err
	case plain < keep:
		w.out = append(out, text[plain:keep]...)
		fallthrough
	case len(out) > 0:
		_, err := w.to.Write(w.out)
		return keep, err
	}
	return keep, nil
}
