package blob

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A transfer may take as long as it needs while something moves: a caller that
// neither sends nor takes a part of it for that long is cut.
const (
	stall = time.Minute
	part  = 8 << 20
)

// pacedReader reads a body that must not stand still.
type pacedReader struct {
	body     io.Reader
	deadline *http.ResponseController
}

func (r *pacedReader) Read(p []byte) (int, error) {
	// A recorder in a test has no deadline, and needs none.
	_ = r.deadline.SetReadDeadline(time.Now().Add(stall))
	n, err := r.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errBody, err)
	}
	return n, err
}

// pacedWriter writes an answer that must not stand still. It leaves the copying
// to the kernel, a part at a time.
type pacedWriter struct {
	http.ResponseWriter
	deadline *http.ResponseController
	written  int64
	err      error
}

func (w *pacedWriter) Write(p []byte) (int, error) {
	_ = w.deadline.SetWriteDeadline(time.Now().Add(stall))
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	w.err = errors.Join(w.err, err)
	return n, err
}

// ReadFrom is what io.Copy calls. The part it hands on is a LimitedReader over
// the file itself, which net/http gives to sendfile.
func (w *pacedWriter) ReadFrom(src io.Reader) (total int64, err error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return io.Copy(onlyWriter{w}, src)
	}
	limit := int64(1<<63 - 1)
	if l, ok := src.(*io.LimitedReader); ok {
		src, limit = l.R, l.N
		defer func() { l.N -= total }()
	}
	for total < limit && err == nil {
		_ = w.deadline.SetWriteDeadline(time.Now().Add(stall))
		want := min(part, limit-total)
		var n int64
		n, err = to.ReadFrom(&io.LimitedReader{R: src, N: want})
		total += n
		if n < want {
			break // the end of the file
		}
	}
	w.written += total
	w.err = errors.Join(w.err, err)
	return total, err
}

// onlyWriter hides every method but Write, so that io.Copy uses its buffer.
type onlyWriter struct{ io.Writer }
