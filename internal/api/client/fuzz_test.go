package client_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api/client"
)

// says is a service that answers everything with the same.
type says struct {
	code   int
	header http.Header
	body   []byte
}

func (s says) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: s.code, Header: s.header, Body: io.NopCloser(bytes.NewReader(s.body)), Request: r, ProtoMajor: 1, ProtoMinor: 1}, nil
}

func (s says) pool(t *testing.T) *client.Pool {
	return pool(connect(t, "http://service.example", func(o *client.Options) { o.HTTP = &http.Client{Transport: s} }))
}

// FuzzPoll: an answer to a poll is work that can be fetched, "no work" in so
// many words, or an error that shows no token.
func FuzzPoll(f *testing.F) {
	f.Add(200, []byte(`{"jobID":"j","jobToken":"lsj-1","typeSpecificID":"d","oidcToken":"","runID":"r"}`))
	f.Add(200, []byte(`{"jobID":"j","deploymentID":"d"}`))
	f.Add(200, []byte("<html>"+token+"</html>"))
	f.Add(200, []byte(`null`))
	f.Add(204, []byte(nil))
	f.Add(401, []byte(`{"code":401,"message":"no `+token+`"}`))
	f.Add(409, []byte(`{"message":"x","expectedOffset":1e99}`))
	f.Add(302, []byte{})
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		if code < 200 || code > 999 {
			return // net/http lets none through
		}
		result, err := says{code: code, header: http.Header{}, body: body}.pool(t).Poll(t.Context(), 0)
		switch {
		case err != nil:
			if strings.Contains(err.Error(), token) {
				t.Errorf("the error shows the token: %v", err)
			}
		case code >= 300:
			t.Errorf("answer %d is no error", code)
		case result.Work == nil:
			if code != http.StatusNoContent {
				t.Errorf("answer %d %q is taken for no work", code, body)
			}
		case result.Work.JobID == "" || result.Work.JobToken == "":
			t.Errorf("work that cannot be fetched: %q", body)
		}
	})
}

// FuzzRetryAfter: whatever a header says, nobody waits for ever, or not at all.
func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"", "1", "0", "-5", "1e9", "NaN", "Inf", "1.5", "soon", "Mon, 02 Jan 2006 15:04:05 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		result, err := says{code: http.StatusNoContent, header: http.Header{"Retry-After": {value}}}.pool(t).Poll(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if wait := result.RetryAfter; wait != 0 && (wait < 200*time.Millisecond || wait > 15*time.Minute) {
			t.Errorf("Retry-After %q makes a wait of %s", value, wait)
		}
	})
}
