package logstream_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/logstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service keeps logs by the rules of the real one: what it has is not stored
// again, what comes too early is refused with the offset expected.
type service struct {
	mu      sync.Mutex
	steps   map[int][]api.LogLine
	batches int
	fault   func(step int, b api.LogBatch) error // before anything is stored
	after   func(step int, b api.LogBatch) error // once it is
}

func newService() *service { return &service{steps: map[int][]api.LogLine{}} }

// take is a logstream.SinkFunc.
func (s *service) take(_ context.Context, step int, b api.LogBatch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches++
	if s.fault != nil {
		if err := s.fault(step, b); err != nil {
			return err
		}
	}
	have := int64(len(s.steps[step]))
	if b.Offset > have {
		return &api.Error{Code: http.StatusConflict, Message: "too far on", ExpectedOffset: &have}
	}
	for i, l := range b.Lines {
		if len(l.Text) > api.MaxLineBytes {
			return api.Errorf(http.StatusBadRequest, "line %d has %d bytes", i, len(l.Text))
		}
	}
	if n := have - b.Offset; n < int64(len(b.Lines)) {
		s.steps[step] = append(s.steps[step], b.Lines[n:]...)
	}
	if s.after != nil {
		return s.after(step, b)
	}
	return nil
}

func (s *service) setFault(f func(step int, b api.LogBatch) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *service) lines(step int) (texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.steps[step] {
		texts = append(texts, l.Text)
	}
	return texts
}

func (s *service) text(step int) string { return strings.Join(s.lines(step), "") }

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.batches
}

// serve puts s behind HTTP, with a chance for faults of the connection, and
// returns a sink that reaches it.
func serve(t *testing.T, s *service, around func(http.ResponseWriter, *http.Request, func())) logstream.Sink {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		around(w, r, func() {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return // cut on the way
			}
			var step int
			if _, err := fmt.Sscanf(r.URL.Path, "/api/workflow/jobs/j/%d/logs", &step); err != nil {
				t.Errorf("path %s: %v", r.URL.Path, err)
			}
			b, err := api.DecodeLogBatch(body)
			if err == nil {
				err = s.take(r.Context(), step, b)
			}
			var e *api.Error
			switch {
			case errors.As(err, &e):
				w.WriteHeader(e.Code)
				if e.ExpectedOffset != nil {
					fmt.Fprintf(w, `{"code":%d,"message":"%s","expectedOffset":%d}`, e.Code, e.Message, *e.ExpectedOffset)
				}
			case err != nil:
				w.WriteHeader(http.StatusInternalServerError)
			default:
				fmt.Fprint(w, "{}")
			}
		})
	}))
	t.Cleanup(server.Close)
	c, err := client.New(client.Options{BaseURL: server.URL, RequestTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c.Job("j", "lsj-token")
}

// closing returns a context for Close that is generous but ends.
func closing(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func mustClose(t *testing.T, s *logstream.Streams) {
	t.Helper()
	if err := s.Close(closing(t)); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if !s.Delivered() {
		t.Error("not everything is delivered after Close")
	}
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("%s of %d bytes", hex.EncodeToString(sum[:6]), len(text))
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come: %s", what)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(time.Millisecond):
		}
	}
}
