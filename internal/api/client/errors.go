package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Error is a call that did not succeed. Its text says what was called, what came
// back and what to check, and never holds a token.
type Error struct {
	Call    string // method and URL
	Outcome string // one of the Outcome constants
	Status  int    // of the reply, 0 when there was none
	// Err is the cause: an *api.Error when the service answered with a status
	// from 400 up.
	Err error

	retryAfter time.Duration
}

// Error describes the call, its result and what to check.
func (e *Error) Error() string {
	text := e.Call + ": " + e.Err.Error()
	if hint := e.hint(); hint != "" {
		text += ": " + hint
	}
	return text
}

func (e *Error) hint() string {
	switch {
	case e.Outcome == OutcomeGarbled:
		return "check that the service URL leads to the service and not to a proxy or login page"
	case e.Status == http.StatusUnauthorized:
		return "check that the token is complete, belongs to this service and was not revoked"
	case e.Status == http.StatusForbidden:
		return "check that the token is of the right kind and may use this pool or job"
	case e.Status == http.StatusProxyAuthRequired:
		return "check the credentials in HTTPS_PROXY"
	case e.Outcome == OutcomeUnreachable:
		return "check the service URL, name resolution, proxy variables and firewall"
	case e.Outcome == OutcomeTimeout:
		return "check the network path and the load of the service"
	}
	return ""
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// RetryAfter returns how long the service asked to wait, between 0.2 s and
// 15 min, or 0 when it did not ask.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// Retryable reports whether the same call may succeed later: the connection
// broke, nothing came back in time, the reply was 408, 425, 429 or 5xx, or it
// was not the service's. What the caller itself ended is not.
func Retryable(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Outcome {
	case OutcomeThrottled, OutcomeUnavailable, OutcomeGarbled, OutcomeTimeout, OutcomeUnreachable:
		return true
	case OutcomeNotTried:
		return e.retryAfter > 0
	}
	return false
}

// Refused reports whether the service refused the token (401, 403).
func Refused(err error) bool { return hasStatus(err, 401, 403) }

// Gone reports whether the service will not take this call again: the job or its
// token is dead (401, 403, 404, 410).
func Gone(err error) bool { return hasStatus(err, 401, 403, 404, 410) }

func hasStatus(err error, codes ...int) bool {
	var e *api.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// outcomeOf names the outcome of a reply with an error status.
func outcomeOf(status int) string {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return OutcomeRefused
	case status == http.StatusTooManyRequests || status == http.StatusTooEarly:
		return OutcomeThrottled
	case status == http.StatusRequestTimeout:
		return OutcomeTimeout
	case status >= 500:
		return OutcomeUnavailable
	case status >= 400:
		return OutcomeRejected
	}
	return OutcomeGarbled
}

// errTimeout is the cause of a request's own limit, so that it is not taken for
// the caller's.
var errTimeout = errors.New("no reply in time")

// outcomeOfTransport names the outcome of a request that brought no reply.
// Parent is the caller's context, own that of the request.
func outcomeOfTransport(parent, own context.Context, err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case parent.Err() != nil:
		return OutcomeCancelled
	case errors.Is(context.Cause(own), errTimeout):
		return OutcomeTimeout
	case errors.As(err, &timeout) && timeout.Timeout():
		return OutcomeTimeout
	}
	return OutcomeUnreachable
}

const (
	minRetryAfter = 200 * time.Millisecond
	maxRetryAfter = 15 * time.Minute
)

// retryAfter reads a Retry-After header, seconds or a date, and keeps it within
// reason. A value that is neither is as if there were none.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	seconds, err := strconv.ParseFloat(value, 64)
	switch at, dateErr := http.ParseTime(value); {
	case dateErr == nil:
		return min(max(at.Sub(now), minRetryAfter), maxRetryAfter)
	case err != nil || seconds != seconds:
		return 0
	case seconds > maxRetryAfter.Seconds():
		return maxRetryAfter
	}
	return max(time.Duration(seconds*float64(time.Second)), minRetryAfter)
}

// excerpt shortens what came back to one line that is safe to show.
func excerpt(body []byte, token string) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "?")), " ")
	if token != "" {
		text = strings.ReplaceAll(text, token, "[secret]")
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "..."
	}
	return fmt.Sprintf("%q", text)
}
