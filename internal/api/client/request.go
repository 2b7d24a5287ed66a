package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// call is one request to make.
type call struct {
	name   string // for the Observer
	method string
	path   string
	token  string
	body   []byte            // nil: none
	hold   time.Duration     // how long the service may take on purpose
	header http.Header       // more of it
	check  func(reply) error // whether a reply that decodes makes sense; nil: it does
	sent   *sent             // the way of body, once there is a request
}

// maxReply is the most of a reply that is read. A job definition with all its
// scripts fits.
const maxReply = 16 << 20

// reply is what came back, with a status below 400 or 3xx left out.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do makes exactly one request and reads the whole reply. When it returns,
// nothing reads cl.body any more.
func (c *Client) do(parent context.Context, cl call) (reply, error) {
	ctx, cancel := context.WithTimeoutCause(parent, c.o.RequestTimeout+cl.hold, errTimeout)
	defer cancel()
	began := time.Now()
	res, err := c.send(ctx, &cl)
	defer cl.sent.end()
	if err != nil {
		return reply{}, c.fail(cl, began, outcomeOfTransport(parent, ctx, err), 0, c.plain(err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	r := reply{status: res.StatusCode, header: res.Header, body: body}
	switch {
	case res.StatusCode >= 300:
		return r, c.refusal(cl, began, res, body)
	case err != nil:
		return r, c.fail(cl, began, outcomeOfTransport(parent, ctx, err), r.status, fmt.Errorf("reply %d broke off: %w", r.status, c.plain(err)))
	case len(body) > maxReply:
		return r, c.fail(cl, began, OutcomeGarbled, r.status, fmt.Errorf("reply %d has more than %d MiB", r.status, maxReply>>20))
	}
	return r, nil
}

// send sends the request.
func (c *Client) send(ctx context.Context, cl *call) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, cl.method, c.base+cl.path, nil)
	if err != nil {
		return nil, err
	}
	cl.sent = new(sent)
	if cl.body != nil {
		req.ContentLength = int64(len(cl.body))
		req.GetBody = func() (io.ReadCloser, error) { return cl.sent.reader(cl.body), nil }
		req.Body = cl.sent.reader(cl.body)
	}
	for name, values := range cl.header {
		req.Header[name] = values
	}
	req.Header.Set("Authorization", "token "+cl.token)
	req.Header.Set("Accept", "application/vnd.pulumi+8")
	req.Header.Set("User-Agent", c.o.UserAgent)
	if cl.method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json") // the service's own runner sends none; PROTOCOL 4
	}
	return c.http.Do(req)
}

// sent lets the body of a request be read until the call is over: a transport
// may go on reading after the reply has come, when the memory is no longer ours.
type sent struct {
	mu   sync.Mutex
	over bool
}

func (s *sent) end() {
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.over = true
	}
}

func (s *sent) reader(body []byte) io.ReadCloser {
	rest := body
	return io.NopCloser(readerFunc(func(p []byte) (int, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.over {
			return 0, errors.New("the call is over")
		}
		if len(rest) == 0 {
			return 0, io.EOF
		}
		n := copy(p, rest)
		rest = rest[n:]
		return n, nil
	}))
}

// refusal makes the error of a reply that is no success.
func (c *Client) refusal(cl call, began time.Time, res *http.Response, body []byte) error {
	outcome := outcomeOf(res.StatusCode)
	wait := retryAfter(res.Header.Get("Retry-After"), time.Now())
	var cause error
	switch {
	case res.StatusCode < 400:
		cause = fmt.Errorf("reply %d sends this call to %s", res.StatusCode, place(res.Header.Get("Location")))
	case isPage(res):
		outcome, cause = OutcomeGarbled, fmt.Errorf("reply %d is a web page, which the service does not send: %s", res.StatusCode, excerpt(body, cl.token))
	default:
		e := &api.Error{}
		var form struct {
			Message        string `json:"message"`
			ExpectedOffset *int64 `json:"expectedOffset"`
		}
		if json.Unmarshal(body, &form) == nil && form.Message != "" {
			e.Message = fmt.Sprintf("%d %s: %s", res.StatusCode, http.StatusText(res.StatusCode), mask(form.Message, cl.token))
		} else {
			e.Message = fmt.Sprintf("%d %s, reply %s", res.StatusCode, http.StatusText(res.StatusCode), excerpt(body, cl.token))
		}
		e.Code, e.ExpectedOffset = res.StatusCode, form.ExpectedOffset
		cause = e
	}
	err := c.fail(cl, began, outcome, res.StatusCode, cause)
	err.retryAfter = wait
	return err
}

// isPage reports whether a reply that would end a job, or an agent, is the web
// page of a proxy on the way: that is no word of the service, whose replies are
// JSON or empty.
func isPage(res *http.Response) bool {
	switch res.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
		return kind == "text/html"
	}
	return false
}

// place returns the scheme and host of a redirect: the rest may hold secrets.
func place(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return "another path"
	}
	return u.Scheme + "://" + u.Host
}

func mask(text, token string) string {
	if token == "" {
		return text
	}
	return strings.ReplaceAll(text, token, "[secret]")
}

// plain takes the URL out of an error of net/http: the call has it already.
func (c *Client) plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// fail makes the error of a call and tells the Observer.
func (c *Client) fail(cl call, began time.Time, outcome string, status int, cause error) *Error {
	c.observe(cl, outcome, began)
	path, _, _ := strings.Cut(cl.path, "?")
	return &Error{Call: cl.method + " " + c.base + path, Outcome: outcome, Status: status, Err: cause}
}

func (c *Client) observe(cl call, outcome string, began time.Time) {
	if c.o.Observer != nil {
		c.o.Observer.Request(cl.name, outcome, time.Since(began))
	}
}

// decode makes one request and reads the JSON of the reply into v, which may be
// nil for a call whose reply says nothing. A reply that is no such JSON is as if
// the service were away: a proxy has answered in its place.
func (c *Client) decode(ctx context.Context, cl call, v any) (reply, error) {
	began := time.Now()
	r, err := c.do(ctx, cl)
	if err != nil {
		return r, err
	}
	empty := r.status == http.StatusNoContent || (v == nil && len(bytes.TrimSpace(r.body)) == 0)
	if v == nil {
		v = new(json.RawMessage)
	}
	if !empty {
		if err := json.Unmarshal(r.body, v); err != nil {
			return r, c.fail(cl, began, OutcomeGarbled, r.status, garbled(r, err, cl.token))
		}
	}
	if cl.check != nil {
		if err := cl.check(r); err != nil {
			return r, c.fail(cl, began, OutcomeGarbled, r.status, err)
		}
	}
	c.observe(cl, OutcomeOK, began)
	return r, nil
}

// garbled says how a reply differs from what the service sends. What may be JSON
// is not quoted: it may hold the tokens and secrets of a job.
func garbled(r reply, err error, token string) error {
	var syntax *json.SyntaxError
	start := bytes.TrimSpace(r.body)
	switch {
	case !errors.As(err, &syntax):
		return fmt.Errorf("reply %d does not fit: %w", r.status, err)
	case len(start) > 0 && bytes.IndexByte([]byte(`{["`), start[0]) >= 0:
		return fmt.Errorf("reply %d is broken JSON of %d bytes: %w", r.status, len(r.body), err)
	}
	return fmt.Errorf("reply %d is not what the service sends but %s", r.status, excerpt(r.body, token))
}
