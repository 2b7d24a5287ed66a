package transfer_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/cache/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const segment = 64 << 10

// secret is in the query of every URL, and in no error.
const secret = "signature=hunter2"

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(b)
	return b
}

// bucket is a server with one object, and faults in front of it.
type bucket struct {
	*httptest.Server
	o transfer.Options

	mu       sync.Mutex
	requests int
	ranges   map[string]int
	content  []byte
	tag      string
	plain    bool // no ranges, no tags
	urls     int  // handed out
	fault    func(n int, w http.ResponseWriter, r *http.Request) (handled bool)
	stored   []byte
}

func newBucket(t *testing.T, content []byte) *bucket {
	t.Helper()
	b := &bucket{content: content, tag: `"1"`, ranges: map[string]int{}}
	b.Server = httptest.NewServer(b)
	transport, err := transfer.NewTransport(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	t.Cleanup(transport.CloseIdleConnections)
	b.o = transfer.Options{
		HTTP: &http.Client{Transport: transport}, Segment: segment, Parallel: 3, Stall: 20 * time.Second,
		Retry: time.Millisecond, Retries: 3, MaxSize: 64 << 20,
	}
	return b
}

// stalls has a test that is about stalls wait for a second.
func (b *bucket) stalls(test string) {
	if strings.Contains(test, "stall") {
		b.o.Stall = time.Second
	}
}

func (b *bucket) url(context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.urls++
	return fmt.Sprintf("%s/object?%s&n=%d", b.URL, secret, b.urls), nil
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.requests++
	n := b.requests
	b.ranges[r.Header.Get("Range")]++
	content, tag, plain, fault := b.content, b.tag, b.plain, b.fault
	b.mu.Unlock()
	if fault != nil && fault(n, w, r) {
		return
	}
	switch {
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil || r.ContentLength != int64(len(body)) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		b.mu.Lock()
		b.stored = body
		b.mu.Unlock()
	case plain:
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content)
	default:
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

func (b *bucket) get(t *testing.T) ([]byte, error) {
	t.Helper()
	d, err := transfer.Get(t.Context(), b.o, b.url)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func noSecret(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows the URL: %v", err)
	}
}

// cut sends a part of the answer that is due and ends the connection.
func cut(b *bucket, w http.ResponseWriter, r *http.Request, part int) {
	rec := httptest.NewRecorder()
	rec.Header().Set("ETag", b.tag)
	if b.plain {
		rec.Header().Set("Content-Length", strconv.Itoa(len(b.content)))
		rec.Header().Del("ETag")
		_, _ = rec.Write(b.content)
	} else {
		http.ServeContent(rec, r, "", time.Time{}, bytes.NewReader(b.content))
	}
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:min(part, rec.Body.Len())])
	_ = http.NewResponseController(w).Flush()
}

func TestGet(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, segment - 1, segment, segment + 1, 10*segment + 17} {
		for _, plain := range []bool{false, true} {
			b := newBucket(t, noise(size))
			b.plain = plain
			got, err := b.get(t)
			if err != nil || !bytes.Equal(got, b.content) {
				t.Errorf("%d bytes, plain %v: got %d, %v", size, plain, len(got), err)
			}
			b.mu.Lock()
			if want := (size + segment - 1) / segment; !plain && b.requests != want {
				t.Errorf("%d bytes: %d requests, want %d", size, b.requests, want)
			}
			b.mu.Unlock()
		}
	}
}

// TestGetReads: however little is read at a time.
func TestGetReads(t *testing.T) {
	t.Parallel()
	b := newBucket(t, noise(5*segment+3))
	d, err := transfer.Get(t.Context(), b.o, b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := io.ReadAll(iotest.HalfReader(d))
	if err != nil || !bytes.Equal(got, b.content) || d.Size != int64(len(b.content)) {
		t.Errorf("got %d of %d bytes, %v", len(got), d.Size, err)
	}
}

func TestGetSurvives(t *testing.T) {
	t.Parallel()
	const size = 6*segment + 100
	for name, fault := range map[string]func(b *bucket) func(n int, w http.ResponseWriter, r *http.Request) bool{
		"connections that break": func(b *bucket) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n%2 == 0 {
					return false
				}
				cut(b, w, r, 1000*n)
				panic(http.ErrAbortHandler)
			}
		},
		"a server that is busy": func(*bucket) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n%3 != 1 {
					return false
				}
				w.WriteHeader([]int{503, 429, 500}[n%3])
				return true
			}
		},
		"a stall in the middle": func(b *bucket) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n != 2 && n != 5 {
					return false
				}
				cut(b, w, r, 5000)
				<-r.Context().Done()
				return true
			}
		},
		"a stall before the first byte": func(*bucket) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, _ http.ResponseWriter, r *http.Request) bool {
				if n != 1 && n != 4 {
					return false
				}
				<-r.Context().Done()
				return true
			}
		},
		"a URL that expires": func(b *bucket) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				if n < 3 || r.URL.Query().Get("n") != "1" {
					return false
				}
				w.WriteHeader(http.StatusForbidden)
				return true
			}
		},
	} {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, plain %v", name, plain), func(t *testing.T) {
				t.Parallel()
				b := newBucket(t, noise(size))
				b.plain = plain
				b.fault = fault(b)
				b.stalls(name)
				got, err := b.get(t)
				if err != nil || !bytes.Equal(got, b.content) {
					t.Errorf("got %d of %d bytes, %v", len(got), size, err)
				}
			})
		}
	}
}

// TestResumes: what came before a connection broke is not asked for again.
func TestResumes(t *testing.T) {
	t.Parallel()
	b := newBucket(t, noise(segment))
	b.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 1 {
			return false
		}
		cut(b, w, r, 40000)
		panic(http.ErrAbortHandler)
	}
	if _, err := b.get(t); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ranges["bytes=0-65535"] != 1 || b.requests != 2 {
		t.Errorf("asked for %v", b.ranges)
	}
}

func TestGetFails(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) func(*bucket, int, http.ResponseWriter, *http.Request) bool {
		return func(_ *bucket, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	for name, tc := range map[string]struct {
		fault func(b *bucket, n int, w http.ResponseWriter, r *http.Request) bool
		is    error
		says  string
		plain bool
	}{
		"no object":     {fault: answer(404, ""), is: transfer.ErrNone},
		"no permission": {fault: answer(403, "<Error><Code>AccessDenied</Code><StringToSign>hunter2</StringToSign></Error>"), is: transfer.ErrNone, says: "403 Forbidden (AccessDenied)"},
		"always busy":   {fault: answer(503, ""), says: "503 Service Unavailable"},
		"an odd answer": {fault: answer(418, ""), says: "418"},
		"a part that is another": {fault: func(_ *bucket, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Range", "bytes 7-9/100")
			w.WriteHeader(http.StatusPartialContent)
			return true
		}, says: "from 7 on in place of 0"},
		"a part without a place":     {fault: answer(206, "xxx"), says: "without saying which"},
		"stalled from the beginning": {fault: func(_ *bucket, _ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, says: "nothing moved for 1s"},
		"stalled for good": {fault: func(b *bucket, n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 1 {
				<-r.Context().Done()
				return true
			}
			cut(b, w, r, 100)
			panic(http.ErrAbortHandler)
		}, says: "nothing moved for 1s"},
		"replaced between ranges": {fault: func(b *bucket, n int, _ http.ResponseWriter, _ *http.Request) bool {
			if n == 3 {
				b.mu.Lock()
				b.content, b.tag = noise(len(b.content)), `"2"`
				b.mu.Unlock()
			}
			return false
		}, is: transfer.ErrReplaced},
		"removed between ranges": {fault: func(_ *bucket, n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 2 {
				w.WriteHeader(http.StatusNotFound)
			}
			return n > 2
		}, is: transfer.ErrReplaced},
		"another length, without tags": {plain: true, fault: func(b *bucket, n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 1 {
				return false
			}
			cut(b, w, r, 100)
			b.mu.Lock()
			b.content = b.content[1:]
			b.mu.Unlock()
			panic(http.ErrAbortHandler)
		}, is: transfer.ErrReplaced},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBucket(t, noise(5*segment))
			b.plain = tc.plain
			b.stalls(name)
			b.fault = func(n int, w http.ResponseWriter, r *http.Request) bool { return tc.fault(b, n, w, r) }
			_, err := b.get(t)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error = %v, want %v %q", err, tc.is, tc.says)
			}
			noSecret(t, err)
		})
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	b := newBucket(t, noise(2*segment))
	b.o.MaxSize = segment
	if _, err := b.get(t); !errors.Is(err, transfer.ErrTooLarge) {
		t.Errorf("error = %v", err)
	}
	b.fault = func(_ int, w http.ResponseWriter, _ *http.Request) bool { // no length at all
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(b.content)
		return true
	}
	if got, err := b.get(t); !errors.Is(err, transfer.ErrTooLarge) {
		t.Errorf("of unknown length: %d bytes, error = %v", len(got), err)
	}
	if err := transfer.Put(t.Context(), b.o, b.url, bytes.NewReader(b.content), int64(len(b.content))); !errors.Is(err, transfer.ErrTooLarge) {
		t.Errorf("Put: error = %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	b := newBucket(t, nil)
	b.Close()
	_, err := b.get(t)
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error = %v", err)
	}
	noSecret(t, err)
	_, err = transfer.Get(t.Context(), b.o, func(context.Context) (string, error) { return "http://[::1?" + secret, nil })
	noSecret(t, err)
	if err == nil {
		t.Error("no error for a URL that is none")
	}
}

func TestCloseEarly(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		b := newBucket(t, noise(40*segment))
		b.plain = plain
		d, err := transfer.Get(t.Context(), b.o, b.url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(d, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		d.Close()
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		b := newBucket(t, noise(40*segment))
		b.plain, b.o.Stall = plain, time.Minute
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		b.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if !plain && n < 3 {
				return false
			}
			cut(b, w, r, 100)
			cancel(enough)
			<-r.Context().Done()
			return true
		}
		d, err := transfer.Get(ctx, b.o, b.url)
		if err == nil {
			_, err = io.Copy(io.Discard, d)
			d.Close()
		}
		if !errors.Is(err, enough) {
			t.Errorf("plain %v: error = %v", plain, err)
		}
	}
}

func TestPut(t *testing.T) {
	t.Parallel()
	content := noise(300000)
	for name, fault := range map[string]func(n int, w http.ResponseWriter, r *http.Request) bool{
		"at once": nil,
		"after connections that broke": func(n int, _ http.ResponseWriter, r *http.Request) bool {
			if n < 3 {
				_, _ = io.CopyN(io.Discard, r.Body, 1000)
				panic(http.ErrAbortHandler)
			}
			return false
		},
		"after a refusal": func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n < 3 {
				w.WriteHeader([]int{0, 403, 503}[n])
			}
			return n < 3
		},
		"after a stall": func(n int, _ http.ResponseWriter, r *http.Request) bool {
			if n < 2 {
				_, _ = io.Copy(io.Discard, r.Body) // or the server would not learn that the client has gone
				<-r.Context().Done()
			}
			return n < 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBucket(t, nil)
			b.fault = fault
			b.stalls(name)
			if err := transfer.Put(t.Context(), b.o, b.url, bytes.NewReader(content), int64(len(content))); err != nil {
				t.Fatal(err)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if !bytes.Equal(b.stored, content) {
				t.Errorf("stored %d bytes of %d", len(b.stored), len(content))
			}
			if b.urls != b.requests {
				t.Errorf("%d URLs for %d tries", b.urls, b.requests)
			}
		})
	}
}

func TestPutFails(t *testing.T) {
	t.Parallel()
	for status, says := range map[int]string{413: "larger than allowed by the storage", 403: "403 Forbidden (SignatureDoesNotMatch)", 500: "500", 409: "409 Conflict"} {
		b := newBucket(t, nil)
		b.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			fmt.Fprintf(w, "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>%s</StringToSign></Error>", secret)
			return true
		}
		err := transfer.Put(t.Context(), b.o, b.url, strings.NewReader("content"), 7)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%d: error = %v, want %q", status, err, says)
		}
		noSecret(t, err)
	}
}

// TestNoURL: a service that gives no URL has tried again by itself.
func TestNoURL(t *testing.T) {
	t.Parallel()
	b := newBucket(t, nil)
	down, asked := errors.New("the service is down"), 0
	where := func(context.Context) (string, error) {
		asked++
		return "", down
	}
	if _, err := transfer.Get(t.Context(), b.o, where); !errors.Is(err, down) || asked != 1 {
		t.Errorf("Get: error = %v after %d calls", err, asked)
	}
	if err := transfer.Put(t.Context(), b.o, where, strings.NewReader(""), 0); !errors.Is(err, down) || asked != 2 {
		t.Errorf("Put: error = %v after %d calls", err, asked)
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("content"))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // one of the handshakes fails
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for _, tc := range []struct {
		ca    []byte
		works bool
	}{{ca, true}, {nil, false}} {
		transport, err := transfer.NewTransport(tc.ca)
		if err != nil {
			t.Fatal(err)
		}
		o := transfer.Options{HTTP: &http.Client{Transport: transport}, Segment: segment, Parallel: 1, Stall: 5 * time.Second, Retry: time.Millisecond, MaxSize: 1 << 20}
		d, err := transfer.Get(t.Context(), o, func(context.Context) (string, error) { return server.URL + "/?" + secret, nil })
		if (err == nil) != tc.works {
			t.Errorf("with certificates %v: error = %v", tc.ca != nil, err)
		}
		noSecret(t, err)
		if err == nil {
			d.Close()
		}
		transport.CloseIdleConnections()
	}
	if _, err := transfer.NewTransport([]byte("none")); err == nil {
		t.Error("no error for certificates that are none")
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	content := noise(3 << 20)
	var length int64
	b := newBucket(t, nil)
	b.fault = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		defer b.mu.Unlock()
		length, b.stored = r.ContentLength, body
		return true
	}
	url, _ := b.url(t.Context())
	err := transfer.Stream(t.Context(), b.o, url, func(_ context.Context, w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil || length != -1 || !bytes.Equal(b.stored, content) {
		t.Errorf("stored %d bytes of %d, length %d, %v", len(b.stored), len(content), length, err)
	}
}

func TestStreamFails(t *testing.T) {
	t.Parallel()
	own := errors.New("a file became shorter")
	endless := func(ctx context.Context, w io.Writer) error {
		for ctx.Err() == nil {
			if _, err := w.Write(make([]byte, 100000)); err != nil {
				return err
			}
		}
		return context.Cause(ctx)
	}
	for name, tc := range map[string]struct {
		write func(ctx context.Context, w io.Writer) error
		fault func(n int, w http.ResponseWriter, r *http.Request) bool
		own   bool
		says  string
	}{
		"the writer fails at once": {write: func(context.Context, io.Writer) error { return own }, own: true},
		"the writer fails later": {write: func(_ context.Context, w io.Writer) error {
			_, _ = w.Write(make([]byte, 1<<20))
			return own
		}, own: true},
		"refused": {write: endless, fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, says: "403"},
		"a connection that breaks": {write: endless, fault: func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			_, _ = io.CopyN(io.Discard, r.Body, 100000)
			panic(http.ErrAbortHandler)
		}},
		"content too early": {write: endless, fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool { return true }},
		"a stall": {write: func(ctx context.Context, w io.Writer) error {
			_, _ = w.Write([]byte("x"))
			<-ctx.Done()
			return context.Cause(ctx)
		}, says: "nothing moved"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBucket(t, nil)
			b.fault = tc.fault
			b.stalls(name)
			url, _ := b.url(t.Context())
			err := transfer.Stream(t.Context(), b.o, url, tc.write)
			var e *transfer.WriteError
			if err == nil || errors.As(err, &e) != tc.own || tc.own && !errors.Is(err, own) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error = %v, want %q, the writer's: %v", err, tc.says, tc.own)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.stored != nil {
				t.Errorf("%d bytes were stored", len(b.stored))
			}
			noSecret(t, err)
		})
	}
}
