package client

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Pool makes the calls of an agent. It is safe for concurrent use.
type Pool struct {
	c     *Client
	token func() (string, error)

	poll, status, executor *breaker
}

// Pool returns a view of c that authenticates with a pool token. The function
// is called for every request, so a token may change while the agent runs.
func (c *Client) Pool(token func() (string, error)) *Pool {
	return &Pool{
		c: c, token: token,
		poll: newBreaker(c.o.Breaker), status: newBreaker(c.o.Breaker), executor: newBreaker(c.o.Breaker),
	}
}

// PollResult is the answer to one poll.
type PollResult struct {
	Work        *api.AgentWorkflowDefinition // nil: the queue is empty
	RetryAfter  time.Duration                // when the service wants the next poll; 0: it did not say
	WaitApplied bool                         // the service held the poll open as it was asked to
}

// Poll asks for work with exactly one request, which is never repeated: its
// answer is a claim. With a wait, in whole seconds, the service is asked to hold
// the call open until there is work. A reply that is neither work nor "no work"
// is an error.
func (p *Pool) Poll(ctx context.Context, wait time.Duration) (PollResult, error) {
	cl := call{name: "poll", method: http.MethodGet, path: "/api/deployments/poll"}
	cl.held(wait)
	var work api.AgentWorkflowDefinition
	cl.check = func(r reply) error {
		if r.status != http.StatusNoContent && (work.JobID == "" || work.JobToken == "") {
			return errors.New("the work in the reply has no jobID or no jobToken")
		}
		return nil
	}
	var result PollResult
	err := p.once(cl, p.poll, func(cl call) error {
		r, err := p.c.decode(ctx, cl, &work)
		if err != nil {
			return err
		}
		result.RetryAfter = retryAfter(r.header.Get("Retry-After"), time.Now())
		result.WaitApplied = applied(r.header)
		if r.status != http.StatusNoContent {
			result.Work = &work
		}
		return nil
	})
	if err != nil {
		return PollResult{}, err
	}
	return result, nil
}

// DeploymentStatus returns the status of a deployment. With a wait, in whole
// seconds, the service is asked to answer only when that becomes final; whether
// it does so is in waitApplied.
func (p *Pool) DeploymentStatus(ctx context.Context, id string, wait time.Duration) (status api.Status, waitApplied bool, err error) {
	cl := call{name: "status", method: http.MethodGet, path: "/api/deployments/" + url.PathEscape(id) + "/status"}
	cl.held(wait)
	cl.check = func(reply) error {
		if !status.Valid() {
			return fmt.Errorf("%q is no status of a deployment", status)
		}
		return nil
	}
	err = p.c.retry(ctx, func() error {
		return p.once(cl, p.status, func(cl call) error {
			r, err := p.c.decode(ctx, cl, &status)
			waitApplied = err == nil && applied(r.header)
			return err
		})
	})
	if err != nil {
		return "", false, err
	}
	return status, waitApplied, nil
}

// Executor downloads the executor for an architecture ("amd64", "arm64") and
// returns it unpacked. The caller closes it. A download that stands still for
// the time of a request fails.
func (p *Pool) Executor(ctx context.Context, arch string) (io.ReadCloser, error) {
	cl := call{name: "executor", method: http.MethodGet, path: "/api/deployments/executor?arch=" + url.QueryEscape(arch)}
	// Uncompressing is ours: the body is a gzip file, whatever the transport does.
	cl.header = http.Header{"Accept-Encoding": {"identity"}}
	var file io.ReadCloser
	err := p.c.retry(ctx, func() error {
		return p.once(cl, p.executor, func(cl call) (err error) {
			file, err = p.c.download(ctx, cl)
			return err
		})
	})
	return file, err
}

// once makes one request through a breaker, with the token of now.
func (p *Pool) once(cl call, b *breaker, try func(call) error) error {
	token, err := p.token()
	if err != nil {
		return p.c.fail(cl, time.Now(), OutcomeNotTried, 0, fmt.Errorf("read the pool token: %w", err))
	}
	if cl.token, err = usable(token); err != nil {
		return p.c.fail(cl, time.Now(), OutcomeNotTried, 0, fmt.Errorf("pool token: %w", err))
	}
	return p.c.through(b, cl, func() error { return try(cl) })
}

// usable checks that a token can go into a header, without showing it.
func usable(token string) (string, error) {
	token = strings.TrimSpace(token)
	if token == "" {
		return "", errors.New("empty")
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return "", errors.New("it holds white space or a character that no token has, perhaps from pasting two lines")
		}
	}
	return token, nil
}

// held asks for the call to be held open (RFC 7240).
func (cl *call) held(wait time.Duration) {
	if s := int64(wait / time.Second); s > 0 {
		cl.hold = wait
		cl.header = http.Header{"Prefer": {"wait=" + strconv.FormatInt(s, 10)}}
	}
}

// applied reports whether the service says that it held the call.
func applied(h http.Header) bool {
	for _, v := range h.Values("Preference-Applied") {
		for pref := range strings.SplitSeq(v, ",") {
			if name, _, _ := strings.Cut(strings.TrimSpace(pref), "="); strings.EqualFold(strings.TrimSpace(name), "wait") {
				return true
			}
		}
	}
	return false
}

// download makes one request and returns its body unpacked.
func (c *Client) download(parent context.Context, cl call) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(parent)
	stall := time.AfterFunc(c.o.RequestTimeout, func() { cancel(errTimeout) })
	began := time.Now()
	end := func() {
		stall.Stop()
		cancel(nil)
	}
	res, err := c.send(ctx, &cl)
	if err != nil {
		defer end()
		return nil, c.fail(cl, began, outcomeOfTransport(parent, ctx, err), 0, c.plain(err))
	}
	if res.StatusCode != http.StatusOK {
		defer end()
		defer res.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // it only helps to explain
		return nil, c.refusal(cl, began, res, body)
	}
	d := &downloading{ctx: ctx, body: res.Body, stall: stall, limit: c.o.RequestTimeout, end: end}
	d.from = bufio.NewReaderSize(readerFunc(d.raw), 64<<10)
	if err := d.unpack(); err != nil {
		_ = d.Close()
		if outcome := outcomeOfTransport(parent, ctx, err); outcome != OutcomeUnreachable {
			return nil, c.fail(cl, began, outcome, res.StatusCode, err)
		}
		return nil, c.fail(cl, began, OutcomeGarbled, res.StatusCode, err)
	}
	c.observe(cl, OutcomeOK, began)
	return d, nil
}

// downloading is a download, unpacked while it is read.
type downloading struct {
	ctx   context.Context
	body  io.ReadCloser
	stall *time.Timer
	limit time.Duration
	end   func()
	from  *bufio.Reader
	plain io.Reader
	once  sync.Once
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// raw reads what the service sends, as long as it sends.
func (d *downloading) raw(p []byte) (int, error) {
	d.stall.Reset(d.limit)
	n, err := d.body.Read(p)
	d.stall.Stop()
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(d.ctx), errTimeout) {
		err = fmt.Errorf("download the executor: %w: nothing came for %s", errTimeout, d.limit)
	}
	return n, err
}

// unpack looks at the beginning: a gzip file, or a program that something on the
// way has unpacked already.
func (d *downloading) unpack() error {
	head, err := d.from.Peek(4)
	switch {
	case len(head) >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		d.plain, err = gzip.NewReader(d.from)
		return err
	case string(head) == "\x7fELF":
		d.plain = d.from
		return nil
	case err != nil && !errors.Is(err, io.EOF):
		return err
	}
	start, _ := d.from.Peek(min(d.from.Buffered(), 200))
	return fmt.Errorf("the reply is no executor but %s", excerpt(start, ""))
}

// Read reads the unpacked executor.
func (d *downloading) Read(p []byte) (int, error) { return d.plain.Read(p) }

// Close ends the download.
func (d *downloading) Close() error {
	d.once.Do(func() {
		d.end()
		_ = d.body.Close()
	})
	return nil
}
