package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

var errDraining = errors.New("the server is stopping")

// writeError answers with err: as it is when it was made for callers, else as a
// 500 that names nothing but the request. The cause goes to the log.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var e *api.Error
	switch {
	case errors.As(err, &e):
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
