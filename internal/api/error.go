package api

import (
	"fmt"
	"net/http"
)

// Error is an error that someone outside of the process may see. Its wire form
// is the body that the Pulumi CLI reads: {"code": <HTTP status>, "message": ...}.
type Error struct {
	Code    int    `json:"code"`    // the HTTP status
	Message string `json:"message"` // safe to show: no paths of the server, SQL or tokens
	// ExpectedOffset goes with a refused log batch: the offset the service
	// expects next for that step.
	ExpectedOffset *int64 `json:"expectedOffset,omitempty"`

	// Err is the cause, for the log of this process. It never crosses the wire.
	Err error `json:"-"`
}

// Errorf returns an Error with the given HTTP status and message.
func Errorf(code int, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error returns the message, with the status when there is no message.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%d %s", e.Code, http.StatusText(e.Code))
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
