package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/poll"
)

// fleet is many simulated agents.
type fleet struct {
	sent  atomic.Int64 // requests
	end   context.CancelFunc
	loops sync.WaitGroup
	hurt  chan error
}

// agent is one of them.
type agent struct {
	fleet *fleet
	api   *client.Client
	pool  *client.Pool
	do    func(context.Context, *agent, job)
}

// job is a claimed piece of work.
type job struct{ deployment, id, token string }

// startFleet starts n agents, spread over two seconds, that do what they claim.
func startFleet(ctx context.Context, u *upstream, n int, do func(context.Context, *agent, job)) (*fleet, error) {
	ctx, end := context.WithCancel(ctx)
	f := &fleet{end: end, hurt: make(chan error, n)}
	for i := range n {
		// As the agent configures it by default.
		c, err := client.New(client.Options{
			BaseURL: u.url, UserAgent: fmt.Sprintf("longshore-agent/bench (linux/amd64; agent-%d; 1)", i),
			HTTP:    &http.Client{Transport: counting{&f.sent, client.NewTransport()}},
			Breaker: client.Breaker{Failures: 6, Open: 2 * time.Minute},
		})
		if err != nil {
			end()
			f.loops.Wait()
			return nil, err
		}
		a := &agent{fleet: f, api: c, pool: c.Pool(func() (string, error) { return u.pool, nil }), do: do}
		f.loops.Go(func() {
			pause(ctx, time.Duration(i)*2*time.Second/time.Duration(n))
			if err := poll.New(poll.Options{Source: a, Handler: a, Slots: 1}).Run(ctx, nil); err != nil {
				f.hurt <- err
			}
		})
	}
	return f, nil
}

// stop ends the agents at once.
func (f *fleet) stop() error {
	f.end()
	f.loops.Wait()
	close(f.hurt)
	return <-f.hurt
}

// Claim makes one poll, as the agent's own source does.
func (a *agent) Claim(ctx context.Context, wait time.Duration) (poll.Answer, error) {
	result, err := a.pool.Poll(ctx, wait)
	if client.Refused(err) {
		err = fmt.Errorf("%w: %w", poll.ErrRefused, err)
	}
	answer := poll.Answer{Work: result.Work, RetryAfter: result.RetryAfter, WaitApplied: result.WaitApplied}
	var failed *client.Error
	if errors.As(err, &failed) {
		answer.RetryAfter = failed.RetryAfter()
	}
	return answer, err
}

// Handle does one claimed job.
func (a *agent) Handle(ctx context.Context, work api.AgentWorkflowDefinition) {
	a.do(ctx, a, job{work.Deployment(), work.JobID, work.JobToken})
}

// begin fetches the definition.
func (a *agent) begin(ctx context.Context, j job) error {
	_, err := a.api.Job(j.id, j.token).Definition(ctx)
	return err
}

// finish fails the job. When the server is away it is left to be found silent.
func (a *agent) finish(ctx context.Context, j job) {
	_ = a.api.Job(j.id, j.token).Step(ctx, 0, api.StepFailed)
}

// counting counts the requests that are sent.
type counting struct {
	sent *atomic.Int64
	http.RoundTripper
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.sent.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// bareServer is what cannot be any faster: it keeps ids in memory and hands them
// out.
type bareServer struct {
	web *httptest.Server

	mu      sync.Mutex
	made    int
	queue   []string
	waiting []chan string
	closed  chan struct{}
}

func newBareServer() *bareServer {
	s := &bareServer{closed: make(chan struct{})}
	s.web = httptest.NewServer(s)
	return s
}

func (s *bareServer) close() {
	close(s.closed)
	s.web.CloseClientConnections()
	s.web.Close()
}

func (s *bareServer) upstream() *upstream {
	return &upstream{url: s.web.URL, pool: "lsp-bench", rest: restclient.Client{URL: s.web.URL, Token: "lsu-bench"}}
}

func (s *bareServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/deployments"):
		fmt.Fprintf(w, `{"id":%q}`, s.push())
	case strings.HasSuffix(r.URL.Path, "/poll"):
		id, ok := s.pop(r.Context())
		if !ok {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_ = json.NewEncoder(w).Encode(api.AgentWorkflowDefinition{DeploymentID: id, JobID: id, JobToken: "lsj-bench"})
	default:
		fmt.Fprint(w, "{}")
	}
}

func (s *bareServer) push() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	id := fmt.Sprint("d", s.made)
	if len(s.waiting) > 0 {
		s.waiting[0] <- id
		s.waiting = s.waiting[1:]
	} else {
		s.queue = append(s.queue, id)
	}
	return id
}

func (s *bareServer) pop(ctx context.Context) (id string, ok bool) {
	s.mu.Lock()
	if len(s.queue) > 0 {
		id, s.queue = s.queue[0], s.queue[1:]
		s.mu.Unlock()
		return id, true
	}
	woken := make(chan string, 1)
	s.waiting = append(s.waiting, woken)
	s.mu.Unlock()
	select {
	case id = <-woken:
		return id, true
	case <-ctx.Done():
	case <-s.closed:
	}
	return "", false
}
