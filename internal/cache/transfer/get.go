package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/longshore-run/longshore/internal/stall"
)

// Download is an object on its way. It must be closed.
type Download struct {
	Size int64 // of the object, -1 when the server does not say

	read   func(p []byte) (int, error)
	end    func()
	cancel context.CancelCauseFunc
	work   sync.WaitGroup
}

// Read returns what comes next of the object. Its errors are final. Read and
// Close are for one goroutine.
func (d *Download) Read(p []byte) (int, error) { return d.read(p) }

// Close ends the download and waits for what it started.
func (d *Download) Close() error {
	d.cancel(errors.New("the download was closed"))
	d.work.Wait()
	d.end()
	return nil
}

// Get begins to download an object. What a Download returns is one version of the
// object: when it is replaced meanwhile, reading fails with ErrReplaced. A server
// that has no such object makes Get fail with ErrNone, as does one that refuses
// the URL: S3 answers 403 for what is not there when listing is not allowed.
func Get(ctx context.Context, o Options, where URL) (*Download, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	g := &get{o: o, where: where}
	var first *body
	err := o.persist(ctx, func(ctx context.Context) (bool, error) {
		var err error
		first, err = g.begin(ctx)
		return false, err
	})
	if err != nil {
		cancel(nil)
		return nil, err
	}
	d := &Download{Size: g.version.size, cancel: cancel, end: func() {}}
	if g.version.ranges {
		g.inParallel(ctx, d, first)
	} else {
		g.asStream(ctx, d, first)
	}
	return d, nil
}

// get is one Get.
type get struct {
	o       Options
	where   URL
	version version

	mu  sync.Mutex
	url string // empty before the first request and after a refusal
}

// version tells one state of an object from another.
type version struct {
	size     int64 // -1 when it is not known
	etag     string
	modified string
	ranges   bool // the server sends parts
}

// same reports whether two answers are of the same object.
func (v version) same(w version) bool {
	return v.etag == w.etag && v.modified == w.modified && (v.size == w.size || v.size < 0 || w.size < 0)
}

// condition is the value of If-Range. A weak tag cannot be one.
func (v version) condition() string {
	if v.etag != "" && !strings.HasPrefix(v.etag, "W/") {
		return v.etag
	}
	return v.modified
}

// body is the answer to one request, from an offset of the object on.
type body struct {
	io.Reader
	close func()
	why   func(error) error // why reading failed
	from  int64
	v     version
}

func (g *get) currentURL(ctx context.Context) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.url != "" {
		return g.url, nil
	}
	url, err := g.where(ctx)
	if err != nil {
		return "", &refusal{err}
	}
	g.url = url
	return url, nil
}

// forget has the next request ask for a new URL, unless another did already.
func (g *get) forget(url string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.url == url {
		g.url = ""
	}
}

// begin makes the first request, which finds out what the server can do.
func (g *get) begin(ctx context.Context) (*body, error) {
	b, err := g.request(ctx, 0, g.o.Segment)
	var status *StatusError
	switch {
	case errors.As(err, &status) && status.Status == http.StatusRequestedRangeNotSatisfiable: // there is not even a first byte
		return nil, fmt.Errorf("%w: it is empty", ErrNone)
	case errors.As(err, &status) && (status.Status == http.StatusForbidden || status.Status == http.StatusNotFound || status.Status == http.StatusGone):
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	case err != nil:
		return nil, err
	case b.v.size > g.o.MaxSize:
		b.close()
		return nil, ErrTooLarge
	}
	g.version = b.v
	return b, nil
}

// request asks for the bytes from from to to (not included; -1: to the end), of
// the version that is known. The answer may begin earlier, at 0, when the server
// does not send parts.
func (g *get) request(parent context.Context, from, to int64) (*body, error) {
	url, err := g.currentURL(parent)
	if err != nil {
		return nil, err
	}
	ctx, dog := stall.New(parent, g.o.Stall, errStalled)
	b, err := g.ask(ctx, dog, url, from, to)
	if err != nil {
		err = g.o.plain(ctx, err)
		dog.Stop()
		var status *StatusError
		if errors.As(err, &status) && refused(status.Status) {
			g.forget(url)
		}
		return nil, err
	}
	return b, nil
}

func (g *get) ask(ctx context.Context, dog *stall.Watch, url string, from, to int64) (*body, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("the service gave a URL that is none")
	}
	span := fmt.Sprintf("bytes=%d-", from)
	if to >= 0 {
		span += strconv.FormatInt(to-1, 10)
	}
	req.Header.Set("Range", span)
	if condition := g.version.condition(); condition != "" {
		req.Header.Set("If-Range", condition)
	}
	res, err := g.o.HTTP.Do(req) //nolint:bodyclose // whoever gets the body closes it
	if err != nil {
		return nil, err
	}
	b := &body{v: version{size: res.ContentLength, etag: res.Header.Get("ETag"), modified: res.Header.Get("Last-Modified")}}
	b.Reader = stall.Reader(res.Body, dog.Touch)
	b.why = func(err error) error { return g.o.plain(ctx, broke(err)) }
	b.close = func() {
		dog.Stop()
		res.Body.Close()
	}
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		b.v.ranges = true
		b.from, b.v.size, err = contentRange(res.Header.Get("Content-Range"))
		if err == nil && b.from != from {
			err = fmt.Errorf("the storage sent bytes from %d on in place of %d", b.from, from)
		}
		if err != nil {
			res.Body.Close()
			return nil, err
		}
	default:
		return nil, statusError(res)
	}
	return b, nil
}

// contentRange reads "bytes 0-99/1234".
func contentRange(text string) (from, size int64, err error) {
	var to int64
	if n, err := fmt.Sscanf(text, "bytes %d-%d/%d", &from, &to, &size); n != 3 || err != nil || from < 0 || to < from || size <= to {
		return 0, 0, fmt.Errorf("the storage sent a part without saying which")
	}
	return from, size, nil
}

// again asks for the rest from an offset on, after a request before broke off.
func (g *get) again(ctx context.Context, from, to int64) (*body, error) {
	b, err := g.request(ctx, from, to)
	var status *StatusError
	switch {
	case errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusGone ||
		status.Status == http.StatusPreconditionFailed || status.Status == http.StatusRequestedRangeNotSatisfiable):
		return nil, ErrReplaced
	case err != nil:
		return nil, err
	case !b.v.same(g.version), b.v.ranges != g.version.ranges && g.version.ranges:
		b.close()
		return nil, ErrReplaced
	}
	return b, nil
}

// fill reads one range into p, which begins at an offset of the object. Body is
// the answer that is under way already, or nil.
func (g *get) fill(ctx context.Context, p []byte, offset int64, under *body) error {
	n := 0
	return g.o.persist(ctx, func(ctx context.Context) (bool, error) {
		b := under
		under = nil
		if b == nil {
			var err error
			if b, err = g.again(ctx, offset+int64(n), offset+int64(len(p))); err != nil {
				return false, err
			}
		}
		defer b.close()
		m, err := io.ReadFull(b, p[n:])
		n += m
		if err != nil {
			return m > 0, b.why(err)
		}
		return true, nil
	})
}

// broke tells the end of an answer that came too early from that of an object.
func broke(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection broke off")
	}
	return err
}
