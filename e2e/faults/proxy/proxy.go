// Package proxy stands between agents, executors and a server and does to their
// requests what networks, load balancers and overloaded services do: it cuts,
// delays, doubles and cuts short, answers in the server's place, and says
// nothing at all. Which request suffers what is a Plan's choice; a seeded plan
// makes the same choices again for the same seed.
//
// A Proxy understands HTTP. A Link carries bytes, for protocols that it need not
// understand.
package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Class is the kind of a request: faults are chosen by it.
type Class string

// The classes of the requests that agents and executors make.
const (
	Poll       Class = "poll"
	Status     Class = "status"
	Definition Class = "definition"
	Steps      Class = "steps"
	Logs       Class = "logs"
	Heartbeat  Class = "heartbeat"
	Other      Class = "other"
)

// Classes are all of them, in the order of a job's life.
func Classes() []Class { return []Class{Poll, Status, Definition, Steps, Logs, Heartbeat, Other} }

// ClassOf says of which class a request is.
func ClassOf(r *http.Request) Class {
	path := r.URL.Path
	switch {
	case path == "/api/deployments/poll":
		return Poll
	case strings.HasPrefix(path, "/api/deployments/") && strings.HasSuffix(path, "/status"):
		return Status
	case !strings.HasPrefix(path, "/api/workflow/jobs/"):
		return Other
	case strings.HasSuffix(path, "/heartbeat"):
		return Heartbeat
	case strings.HasSuffix(path, "/logs"):
		return Logs
	case strings.HasSuffix(path, "/status"):
		return Steps
	case r.Method == http.MethodGet:
		return Definition
	}
	return Other
}

// Proxy is a running proxy. It is safe for concurrent use.
type Proxy struct {
	target string // host:port of the server
	client *http.Transport
	server *http.Server
	listen net.Listener

	life     context.Context
	end      context.CancelCauseFunc
	handlers sync.WaitGroup

	mu     sync.Mutex
	closed bool
	plan   Plan
	counts map[Class]map[Kind]int
}

var errClosed = errors.New("the proxy is closed")

// New starts a proxy on a free loopback address in front of the server at
// target, an address. Without a plan every request passes.
func New(ctx context.Context, target string, plan Plan) (*Proxy, error) {
	listen, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return On(ctx, listen, target, plan), nil
}

// On starts a proxy on a listener, which it closes in the end.
func On(ctx context.Context, listen net.Listener, target string, plan Plan) *Proxy {
	p := &Proxy{
		target: target, listen: listen, plan: plan, counts: map[Class]map[Kind]int{},
		// A server that was killed comes back on the same address: no connection
		// is kept, so that none is found dead.
		client: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	}
	p.life, p.end = context.WithCancelCause(context.WithoutCancel(ctx))
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	p.handlers.Go(func() { _ = p.server.Serve(listen) })
	return p
}

// URL is the base URL of the proxy.
func (p *Proxy) URL() string { return "http://" + p.listen.Addr().String() }

// Close cuts everything and waits.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end(errClosed)
	_ = p.server.Close()
	p.handlers.Wait()
	p.client.CloseIdleConnections()
}

// Follow makes the proxy obey another plan from the next request on; nil lets
// every request pass.
func (p *Proxy) Follow(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// Counts returns how many requests of each class suffered each kind of fault.
func (p *Proxy) Counts() map[Class]map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[Class]map[Kind]int{}
	for class, kinds := range p.counts {
		counts[class] = map[Kind]int{}
		for kind, n := range kinds {
			counts[class][kind] = n
		}
	}
	return counts
}

func (p *Proxy) choose(r *http.Request) Fault {
	class := ClassOf(r)
	p.mu.Lock()
	defer p.mu.Unlock()
	f := Fault{Kind: Pass}
	if p.plan != nil {
		f = p.plan.Choose(class, r)
	}
	if f.Kind == "" || f.Over > 0 && r.ContentLength <= f.Over {
		f.Kind = Pass
	}
	if p.counts[class] == nil {
		p.counts[class] = map[Kind]int{}
	}
	p.counts[class][f.Kind]++
	return f
}

// enter makes Close wait for the caller; false: it has been called already.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.handlers.Add(1)
	}
	return !p.closed
}

// maxBody bounds a request: it is kept, to be sent twice.
const maxBody = 64 << 20

// ServeHTTP does to one request what the plan says.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.enter() {
		cut(w)
		return
	}
	defer p.handlers.Done()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return // the caller is gone
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(p.life, func() { cancel(errClosed) })()

	c := &call{proxy: p, w: w, r: r, body: body, ctx: ctx}
	switch f := p.choose(r); f.Kind {
	case Cut:
		cut(w)
	case Drop:
		c.drop()
	case Delay:
		if c.wait(f.For) {
			c.pass()
		}
	case Twice:
		c.unheard()
		c.pass()
	case Together:
		c.together()
	case HalfRequest:
		c.halfRequest()
	case HalfAnswer:
		c.halfAnswer()
	case Truncate:
		c.truncate()
	case Answer:
		f.write(w)
	case Blackhole:
		c.wait(f.For)
		cut(w)
	default:
		c.pass()
	}
}

// call is one request on its way.
type call struct {
	proxy *Proxy
	w     http.ResponseWriter
	r     *http.Request
	body  []byte
	ctx   context.Context
}

// send sends the request to the server.
func (c *call) send() (*http.Response, error) {
	out := c.r.Clone(c.ctx)
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = "http", c.proxy.target
	out.Body = io.NopCloser(bytes.NewReader(c.body))
	out.ContentLength = int64(len(c.body))
	if len(c.body) == 0 {
		out.Body = nil
	}
	return c.proxy.client.RoundTrip(out)
}

// answered is a whole answer.
type answered struct {
	code   int
	header http.Header
	body   []byte
}

// answer sends the request and reads the whole answer.
func (c *call) answer() (a answered, err error) {
	res, err := c.send()
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answered{res.StatusCode, res.Header, body}, err
}

// pass is what a proxy is for. A server that is away shows as a connection that
// breaks.
func (c *call) pass() {
	res, err := c.send()
	if err != nil {
		cut(c.w)
		return
	}
	defer res.Body.Close()
	header(c.w, res.Header)
	c.w.WriteHeader(res.StatusCode)
	if _, err := io.Copy(c.w, res.Body); err != nil {
		cut(c.w)
	}
}

// unheard has the server do it, and forgets what it said.
func (c *call) unheard() {
	if res, err := c.send(); err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

func (c *call) drop() {
	c.unheard()
	cut(c.w)
}

// together sends the request twice at the same time; the caller gets the answer
// of the one that started first.
func (c *call) together() {
	var other sync.WaitGroup
	defer other.Wait()
	other.Go(c.unheard)
	c.pass()
}

// halfRequest lets the server see the request's head and half of its body.
func (c *call) halfRequest() {
	defer cut(c.w)
	conn, err := (&net.Dialer{}).DialContext(c.ctx, "tcp", c.proxy.target)
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", c.r.Method, c.r.URL.RequestURI(), c.proxy.target, max(len(c.body), 2))
	_ = c.r.Header.WriteSubset(conn, map[string]bool{"Host": true, "Content-Length": true, "Connection": true})
	fmt.Fprint(conn, "\r\n")
	_, _ = conn.Write(c.body[:len(c.body)/2])
}

// halfAnswer has the server do it, and cuts in the middle of its answer.
func (c *call) halfAnswer() {
	a, err := c.answer()
	if err != nil || a.code == http.StatusNoContent || len(a.body) == 0 {
		cut(c.w)
		return
	}
	header(c.w, a.header)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	c.w.WriteHeader(a.code)
	_, _ = c.w.Write(a.body[:len(a.body)/2])
	_ = http.NewResponseController(c.w).Flush()
	cut(c.w)
}

// truncate has the server do it, and gives the caller half of the answer as if
// that were all.
func (c *call) truncate() {
	a, err := c.answer()
	if err != nil {
		cut(c.w)
		return
	}
	header(c.w, a.header)
	c.w.Header().Del("Content-Length")
	c.w.WriteHeader(a.code)
	_, _ = c.w.Write(a.body[:len(a.body)/2])
}

// wait waits until the caller has given up, the proxy ends, or, when d is not
// 0, for d, and reports whether it was that.
func (c *call) wait(d time.Duration) bool {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// hop are headers that are between two neighbours.
var hop = []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade"}

func header(w http.ResponseWriter, from http.Header) {
	for name, values := range from {
		w.Header()[name] = values
	}
	for _, name := range hop {
		w.Header().Del(name)
	}
}

// cut resets the connection: the caller does not hear a proper end.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the answer has begun: net/http cuts it off
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}
