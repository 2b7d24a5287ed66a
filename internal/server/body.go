package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// The most bytes a body may have, after inflating.
const (
	maxBody    = 1 << 20
	maxLogBody = 4 << 20
)

// keepBuffer is the largest buffer that goes back to the pool.
const keepBuffer = 2 * maxLogBody

// bodies lends the buffers that bodies are read into and answers are written from.
type bodies struct{ pool sync.Pool }

func (b *bodies) get() *bytes.Buffer {
	if buf, ok := b.pool.Get().(*bytes.Buffer); ok {
		buf.Reset()
		return buf
	}
	return new(bytes.Buffer)
}

func (b *bodies) put(buf *bytes.Buffer) {
	if buf.Cap() <= keepBuffer {
		b.pool.Put(buf)
	}
}

// decode reads the JSON object that r carries into v.
func (s *Server) decode(w http.ResponseWriter, r *http.Request, v any) error {
	buf := s.bodies.get()
	defer s.bodies.put(buf)
	if err := readBody(w, r, buf, maxBody); err != nil {
		return err
	}
	text := bytes.TrimSpace(buf.Bytes())
	if len(text) == 0 {
		return api.Errorf(http.StatusBadRequest, "the body is empty, want a JSON object")
	}
	if bytes.Equal(text, []byte("null")) {
		return api.Errorf(http.StatusBadRequest, "the body is a JSON null, want an object")
	}
	if err := json.Unmarshal(text, v); err != nil {
		return badBody(err)
	}
	return nil
}

// readBody reads the whole body of r into buf, inflated. The errors are for the
// caller.
func readBody(w http.ResponseWriter, r *http.Request, buf *bytes.Buffer, limit int64) error {
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	body, err := inflate(http.MaxBytesReader(w, r.Body, limit), r.Header.Get("Content-Encoding"))
	if err != nil {
		return unreadable(err, limit)
	}
	// The deadline is for the body alone: one that outlives it would end the
	// request in the middle of its work.
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(bodyTimeout))
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(body, limit+1))
	if err != nil {
		return unreadable(err, limit)
	}
	_ = deadline.SetReadDeadline(time.Time{})
	if n > limit {
		return tooLarge(limit)
	}
	return nil
}

func inflate(body io.Reader, encoding string) (io.Reader, error) {
	switch encoding {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
		return gzip.NewReader(body)
	}
	return nil, api.Errorf(http.StatusUnsupportedMediaType, "Content-Encoding %q is not supported, only gzip", encoding)
}

func unreadable(err error, limit int64) error {
	var known *api.Error
	var max *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &max):
		return tooLarge(limit)
	}
	return &api.Error{Code: http.StatusBadRequest, Message: "the body could not be read to its end; with Content-Encoding: gzip it must be a gzip stream", Err: err}
}

func tooLarge(limit int64) error {
	return api.Errorf(http.StatusRequestEntityTooLarge, "the body is larger than the limit of %d MiB: send less at a time", limit>>20)
}

// jsonKind says what a member should have been.
func jsonKind(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct, reflect.Pointer:
		return "an object"
	default:
		return "a whole number"
	}
}

// writeJSON answers with v.
func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, code int, v any) {
	buf := s.bodies.get()
	defer s.bodies.put(buf)
	encoder := json.NewEncoder(buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil { // a type of ours that cannot be encoded
		s.log.Error("answer not encoded", zap.String("request_id", requestID(r)), zap.String("route", route(r)), zap.Error(err))
		code = http.StatusInternalServerError
		buf.Reset()
		buf.WriteString(`{"code":500,"message":"internal error ` + requestID(r) + `"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A caller that went away is no error of ours.
	_, _ = w.Write(buf.Bytes())
}

// ok answers that all is well and that there is nothing to say.
func (s *Server) ok(w http.ResponseWriter, r *http.Request) {
	s.writeJSON(w, r, http.StatusOK, struct{}{})
}
