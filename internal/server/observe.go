package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

type requestIDKey struct{}

// requestID returns the id of r, which the caller may have chosen.
func requestID(r *http.Request) string {
	id, _ := r.Context().Value(requestIDKey{}).(string)
	return id
}

// observe is around every request: it gives it an id, survives a panic, counts
// and logs.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handlers.Add(1)
		defer s.handlers.Done()
		start := time.Now()
		id := r.Header.Get("X-Request-Id")
		if !plausibleID(id) {
			id = newID()
		}
		r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
		header := w.Header()
		header.Set("X-Request-Id", id)
		header.Set("X-Pulumi-Request-ID", id)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "no-store")

		rec := &recorder{ResponseWriter: w}
		s.metrics.inFlight.Inc()
		defer func() {
			s.metrics.inFlight.Dec()
			s.recovered(rec, r, recover())
			s.metrics.observe(route(r), rec.code, time.Since(start))
			s.log.Debug("request",
				zap.String("request_id", id), zap.String("method", r.Method), zap.String("path", r.URL.Path),
				zap.Int("status", rec.code), zap.Int64("bytes", rec.bytes), zap.Duration("duration", time.Since(start)))
		}()
		next.ServeHTTP(rec, r)
	})
}

// recovered answers for a handler that panicked.
func (s *Server) recovered(rec *recorder, r *http.Request, cause any) {
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(cause) // the way to say: cut the connection
	}
	s.metrics.panics.Inc()
	s.log.Error("handler panicked", zap.String("request_id", requestID(r)), zap.String("route", route(r)),
		zap.Any("panic", cause), zap.ByteString("stack", debug.Stack()))
	if rec.code == 0 {
		s.writeError(rec, r, api.Errorf(http.StatusInternalServerError, "internal error %s", requestID(r)))
	}
}

// route returns the method and the pattern that r matched, for metrics and logs.
func route(r *http.Request) string {
	if c := chi.RouteContext(r.Context()); c != nil {
		if pattern := c.RoutePattern(); pattern != "" {
			return r.Method + " " + pattern
		}
	}
	return "none"
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	code  int
	bytes int64
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom lets the kernel copy a file into the connection, when it can.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func newID() string {
	var b [12]byte
	rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}

// plausibleID reports whether id can stand in a log and a header without harm.
func plausibleID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
