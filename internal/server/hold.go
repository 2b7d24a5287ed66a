package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxHold is the longest time a call is held, whatever the caller prefers.
const maxHold = 60 * time.Second

// preferredWait returns the time that r asks to be held for by RFC 7240
// (Prefer: wait=N), and whether it asks at all. What is no sensible number of
// seconds is ignored, as the RFC wants it.
func preferredWait(h http.Header) (time.Duration, bool) {
	for _, line := range h.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			preference, _, _ = strings.Cut(preference, ";") // its parameters
			name, value, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			seconds, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
			if err != nil || seconds < 0 {
				return 0, false
			}
			return min(time.Duration(seconds)*time.Second, maxHold), true
		}
	}
	return 0, false
}

// hold prepares w and r for a call that may be held: the context it returns ends
// when the caller goes away or until does. Call done at the end. The answer says
// that the preference was honoured only while that is so.
func (s *Server) hold(w http.ResponseWriter, r *http.Request, until context.Context) (ctx context.Context, wait time.Duration, done func()) {
	wait, asked := preferredWait(r.Header)
	if !asked || until.Err() != nil {
		return r.Context(), 0, func() {}
	}
	w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	extendAnswer(w, wait)
	ctx, cancel := context.WithCancelCause(r.Context())
	stop := context.AfterFunc(until, func() { cancel(errDraining) })
	s.metrics.held.Inc()
	return ctx, wait, func() {
		s.metrics.held.Dec()
		stop()
		cancel(nil)
	}
}
