package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

var errDraining = errors.New("the server is stopping")

// retryLater is what a caller is asked to wait while the database cannot be used.
const retryLater = 2 * time.Second

// writeError answers with err: as it is when it was made for callers, as a 503
// when the database cannot be used now, else as a 500 that names nothing but the
// request. The cause goes to the log.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var e *api.Error
	var unavailable *control.UnavailableError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &unavailable):
		e = api.Errorf(http.StatusServiceUnavailable, "the database of this service cannot be used now: %s; try again", unavailable.Reason)
		w.Header().Set("Retry-After", strconv.Itoa(int(retryLater/time.Second)))
		s.unavailable(r, err)
	case r.Context().Err() != nil:
		// Nobody reads this unless it is the server that stops.
		e = api.Errorf(http.StatusServiceUnavailable, "cut short: the caller went away or the server is stopping; try again")
		w.Header().Set("Retry-After", "1")
	default:
		e = api.Errorf(http.StatusInternalServerError, "internal error %s", requestID(r))
		e.Err = err
	}
	if e.Code >= http.StatusInternalServerError && e.Err != nil {
		s.log.Error("request failed", zap.String("request_id", requestID(r)), zap.String("route", route(r)), zap.Error(e.Err))
	}
	switch e.Code {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="longshore"`)
	case http.StatusRequestEntityTooLarge:
		w.Header().Set("Connection", "close") // the rest of the body is not worth reading
	}
	s.writeJSON(w, r, e.Code, e)
}

// warnEvery is how often the log repeats that the database cannot be used.
const warnEvery = 10 * time.Second

// warned is when the log last said so.
type warned struct {
	sync.Mutex
	last time.Time
}

// unavailable logs that the database cannot be used: once in a while, because
// every request runs into it.
func (s *Server) unavailable(r *http.Request, err error) {
	now := time.Now()
	s.warned.Lock()
	due := now.Sub(s.warned.last) >= warnEvery
	if due {
		s.warned.last = now
	}
	s.warned.Unlock()
	if due {
		s.log.Error("the database cannot be used, requests are answered with 503",
			zap.String("request_id", requestID(r)), zap.String("route", route(r)), zap.Error(err))
	}
}

// badParameter answers to a parameter of the path or the query that is not of
// its type.
func (s *Server) badParameter(w http.ResponseWriter, r *http.Request, err error) {
	name, message := "request", err.Error()
	var format *InvalidParamFormatError
	var count *TooManyValuesForParamError
	switch {
	case errors.As(err, &format):
		name, message = format.ParamName, fmt.Sprintf("%q is not a %s", given(r, format.ParamName), wanted(format.ParamName))
	case errors.As(err, &count):
		name, message = count.ParamName, fmt.Sprintf("given %d times, want it once", count.Count)
	}
	s.writeError(w, r, &api.Error{Code: http.StatusBadRequest, Message: name + ": " + message, Err: err})
}

func given(r *http.Request, name string) string {
	if v := chi.URLParam(r, name); v != "" {
		return v
	}
	return r.URL.Query().Get(name)
}

// wanted names the type of a parameter. All that are no text are numbers, but two.
func wanted(name string) string {
	if name == "asc" || name == "force" {
		return "truth value: want true or false"
	}
	return "whole number"
}

func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	s.writeError(w, r, api.Errorf(http.StatusNotFound, "there is nothing at %s", r.URL.Path))
}

func (s *Server) noMethod(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if s.router.Match(chi.NewRouteContext(), method, r.URL.Path) {
			allowed = append(allowed, method)
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	s.writeError(w, r, api.Errorf(http.StatusMethodNotAllowed, "%s is not possible here, only %s", r.Method, strings.Join(allowed, ", ")))
}

// badBody explains why a body could not be read as JSON, without the names of
// Go's types.
func badBody(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	e := &api.Error{Code: http.StatusBadRequest, Err: err}
	switch {
	case errors.As(err, &syntax):
		e.Message = fmt.Sprintf("the body is not valid JSON: %v (byte %d)", syntax, syntax.Offset)
	case errors.As(err, &kind) && kind.Field == "":
		e.Message = fmt.Sprintf("the body is a JSON %s, want an object", kind.Value)
	case errors.As(err, &kind):
		e.Message = fmt.Sprintf("%s: want %s, not a JSON %s", kind.Field, jsonKind(kind), kind.Value)
	default:
		e.Message = err.Error()
	}
	return e
}
