package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/longshore-run/longshore/internal/stall"
)

// Put stores size bytes of content as an object. Its length is sent with it: a
// bucket takes nothing else by a presigned URL. Each try asks for a URL, as one
// may have expired while the try before it went on.
func Put(ctx context.Context, o Options, where URL, content io.ReaderAt, size int64) error {
	if size > o.MaxSize {
		return ErrTooLarge
	}
	return o.persist(ctx, func(ctx context.Context) (bool, error) {
		url, err := where(ctx)
		if err != nil {
			return false, &refusal{err}
		}
		return false, o.put(ctx, url, size, func(touch func()) io.ReadCloser {
			return io.NopCloser(stall.Reader(io.NewSectionReader(content, 0, size), touch))
		})
	})
}

// WriteError is an error of what is stored, not of storing it.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// Stream stores what write writes as an object, while it is written, by a URL
// that takes a body whose length is not known before. It tries once: what was
// written is gone. When write fails by itself, the error is a *WriteError, and
// nothing is stored.
func Stream(ctx context.Context, o Options, url string, write func(ctx context.Context, w io.Writer) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	var failed error
	var work sync.WaitGroup
	work.Go(func() {
		if failed = write(ctx, w); failed != nil && !errors.Is(failed, errUnread) {
			cancel(&WriteError{failed}) // or an object that ends here would seem whole
		}
		w.CloseWithError(failed)
	})
	err := o.put(ctx, url, -1, func(touch func()) io.ReadCloser {
		return sent{stall.Reader(r, touch), func() error { return r.CloseWithError(errUnread) }} // closed, it lets nobody wait any more
	})
	if err != nil {
		cancel(err)
	}
	r.CloseWithError(errUnread)
	work.Wait()
	var own *WriteError
	switch {
	case err != nil && errors.As(context.Cause(ctx), &own):
		return own
	case err != nil:
		return err
	}
	return failed // which it has when the storage was content too early
}

// errUnread is what a writer gets of which nobody reads any more.
var errUnread = errors.New("the storage took no more")

// sent is the body of a request.
type sent struct {
	io.Reader
	close func() error
}

func (s sent) Close() error { return s.close() }

// put makes one request. Size is -1 when it is not known.
func (o Options) put(parent context.Context, url string, size int64, open func(touch func()) io.ReadCloser) error {
	ctx, dog := stall.New(parent, o.Stall, errStalled)
	defer dog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, http.NoBody)
	if err != nil {
		return errors.New("the service gave a URL that is none")
	}
	if size != 0 {
		req.Body = open(dog.Touch)
	}
	if req.ContentLength = size; size >= 0 {
		req.GetBody = func() (io.ReadCloser, error) { return open(dog.Touch), nil }
	}
	// A request ends only when nobody reads its body any more.
	defer context.AfterFunc(ctx, func() { req.Body.Close() })()
	req.Header.Set("X-Ms-Blob-Type", "BlockBlob") // Azure wants to be told, and nobody else minds
	res, err := o.HTTP.Do(req)
	if err != nil {
		return o.plain(ctx, err)
	}
	switch {
	case res.StatusCode == http.StatusRequestEntityTooLarge:
		res.Body.Close()
		return fmt.Errorf("%w by the storage", ErrTooLarge)
	case res.StatusCode >= 300:
		return statusError(res)
	}
	defer res.Body.Close()
	if _, err = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)); err != nil {
		return o.plain(ctx, err)
	}
	return nil
}
