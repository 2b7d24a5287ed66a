package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
	"github.com/longshore-run/longshore/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is an HTTP service with a queue, as small as a real agent can bear.
type service struct {
	*httptest.Server
	mu      sync.Mutex
	queue   []api.AgentWorkflowDefinition
	polled  chan struct{} // receives a value for each poll
	calls   []string
	logs    strings.Builder
	agent   string
	refuses bool
	ended   chan string // receives the job of each last step that ended
}

func newService(t *testing.T, deployments ...string) *service {
	s := &service{polled: make(chan struct{}, 1000), ended: make(chan string, 1000)}
	for _, id := range deployments {
		s.queue = append(s.queue, api.AgentWorkflowDefinition{TypeSpecificID: id, JobID: "job-" + id, JobToken: "lsj-" + id})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/deployments/poll", s.poll)
	mux.HandleFunc("GET /api/deployments/{id}/status", func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // held for ever: nobody cancels
	})
	mux.HandleFunc("GET /api/workflow/jobs/{job}", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.JobDefinition{
			Image: &api.DockerImage{Reference: "acme/pulumi:1"}, Steps: []api.Step{{Name: "Setup"}, {Name: "Only", Run: `true --stackIdentity="acme/shop/dev"`}},
		})
	})
	mux.HandleFunc("PATCH /api/workflow/jobs/{job}/{step}/status", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Status api.StepStatus }
		_ = json.NewDecoder(r.Body).Decode(&body)
		s.note(r, fmt.Sprintf("%s %s", r.PathValue("step"), body.Status))
		fmt.Fprint(w, "{}")
		if r.PathValue("step") == "1" && body.Status.Terminal() {
			s.ended <- r.PathValue("job")
		}
	})
	mux.HandleFunc("POST /api/workflow/jobs/{job}/{step}/logs", func(w http.ResponseWriter, r *http.Request) {
		var batch api.LogBatch
		_ = json.NewDecoder(r.Body).Decode(&batch)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range batch.Lines {
			s.logs.WriteString(l.Text)
		}
		fmt.Fprint(w, "{}")
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *service) poll(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.agent = r.UserAgent()
	refuses := s.refuses || r.Header.Get("Authorization") != "token lsp-1"
	var next *api.AgentWorkflowDefinition
	if len(s.queue) > 0 && !refuses {
		next, s.queue = &s.queue[0], s.queue[1:]
	}
	s.mu.Unlock()
	s.polled <- struct{}{}
	switch {
	case refuses:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"code":401,"message":"unknown token"}`)
	case next != nil:
		_ = json.NewEncoder(w).Encode(next)
	default:
		select {
		case <-time.After(50 * time.Millisecond): // held, but not for long: this is a test
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *service) note(r *http.Request, call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, r.PathValue("job")+" "+call)
}

// plays an executor that reports over HTTP, as a real one does.
func plays(_ context.Context, job fake.Job) backend.Exit {
	for _, call := range []string{`0/status {"status":"succeeded"}`, `1/status {"status":"running"}`, `1/status {"status":"succeeded"}`} {
		path, body, _ := strings.Cut(call, " ")
		req, err := http.NewRequest(http.MethodPatch, job.File.ServiceURL+"/api/workflow/jobs/"+job.File.JobID+"/"+path, strings.NewReader(body))
		if err != nil {
			return backend.Exit{Code: 1}
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			return backend.Exit{Code: 1}
		}
		resp.Body.Close()
	}
	return backend.Exit{Report: &api.Report{Step: 1, Status: api.StepSucceeded, Delivered: true, Outcome: api.OutcomeSucceeded}}
}

func config(t *testing.T, s *service, token string) agent.Config {
	return agent.Config{
		ServiceURL: s.URL + "/", Token: func() (string, error) { return token, nil },
		Backend: fake.New(fake.Script{Executor: plays}), Concurrency: 4,
		WorkingDirectory: filepath.Join(t.TempDir(), "state"), PollWait: time.Second, PollingInterval: 20 * time.Millisecond,
	}
}

func TestJobsFromClaimToEnd(t *testing.T) {
	t.Parallel()
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	s := newService(t, ids...)
	reg, health := prometheus.NewRegistry(), telemetry.NewHealth(0)
	a, err := agent.New(config(t, s, "lsp-1"), agent.Deps{Registerer: reg, Health: health, Version: "v1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	drain, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(t.Context(), drain) }()
	for range ids {
		<-s.ended
	}
	close(drain)
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	want := "0 running, 0 succeeded, 1 running, 1 succeeded"
	for _, id := range ids {
		var got []string
		for _, call := range s.calls {
			if rest, ok := strings.CutPrefix(call, "job-"+id+" "); ok {
				got = append(got, rest)
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s went %q, want %q", id, got, want)
		}
	}
	if got := s.logs.String(); strings.Count(got, "started fake-job-") != len(ids) {
		t.Errorf("setup logs:\n%s\nwant a line of the backend's for each job", got)
	}
	if !strings.HasPrefix(s.agent, "longshore-agent/v1.2.3 (linux/") {
		t.Errorf("User-Agent = %q", s.agent)
	}
	if n := testutil.CollectAndCount(reg, "longshore_agent_jobs_total", "longshore_agent_polls_total", "longshore_agent_requests_total"); n == 0 {
		t.Error("no metrics")
	}
	if reasons := health.Reasons(); len(reasons) != 1 || !strings.Contains(reasons[0], "draining") {
		t.Errorf("not ready because of %q, want because it drains", reasons)
	}
}

func TestNothingIsClaimedBeforeItIsKnownWhatRuns(t *testing.T) {
	t.Parallel()
	s := newService(t, "new")
	var away atomic.Bool
	away.Store(true)
	asked := make(chan struct{}, 1000)
	c := config(t, s, "lsp-1")
	c.Backend = fake.New(fake.Script{Executor: plays, Check: func(context.Context) error {
		asked <- struct{}{}
		if away.Load() {
			return errors.New("no engine")
		}
		return nil
	}})
	health := telemetry.NewHealth(0)
	a, err := agent.New(c, agent.Deps{Health: health})
	if err != nil {
		t.Fatal(err)
	}
	drain, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(t.Context(), drain) }()
	<-asked
	<-asked // so the first answer was heard
	if reasons := health.Reasons(); len(reasons) != 1 || !strings.Contains(reasons[0], "recovery: find the jobs of before: no engine") {
		t.Errorf("not ready because of %q", reasons)
	}
	if len(s.polled) != 0 {
		t.Error("the agent polled before it knew what it has in hand")
	}
	away.Store(false)
	<-s.ended
	close(drain)
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestAnAgentThatIsStoppedBeforeItKnowsWhatRunsLeavesIt(t *testing.T) {
	t.Parallel()
	s := newService(t)
	asked := make(chan struct{}, 1000)
	c := config(t, s, "lsp-1")
	c.Backend = fake.New(fake.Script{Check: func(context.Context) error {
		asked <- struct{}{}
		return errors.New("no engine")
	}})
	a, err := agent.New(c, agent.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	drain, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(t.Context(), drain) }()
	<-asked
	close(drain)
	if err := <-done; err != nil || len(s.polled) != 0 {
		t.Errorf("Run() = %v after %d polls", err, len(s.polled))
	}
}

func TestOneAgentForADirectory(t *testing.T) {
	t.Parallel()
	s := newService(t)
	c := config(t, s, "lsp-1")
	first, err := agent.New(c, agent.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.New(c, agent.Deps{}); err == nil || !strings.Contains(err.Error(), "in use by another longshore-agent") {
		t.Errorf("New() = %v, want the directory to be in use", err)
	}
	drain := make(chan struct{})
	close(drain)
	if err := first.Run(t.Context(), drain); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.New(c, agent.Deps{}); err != nil {
		t.Errorf("New() = %v once the first has ended", err)
	}
}

func TestARefusedTokenIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a, err := agent.New(config(t, s, "lsp-wrong"), agent.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	err = a.Run(t.Context(), nil)
	if !errors.Is(err, agent.ErrRefused) || strings.Contains(err.Error(), "lsp-wrong") {
		t.Errorf("Run() = %v, want ErrRefused, and no token", err)
	}
	if len(s.polled) != 1 {
		t.Errorf("%d polls, want one", len(s.polled))
	}
}

func TestMistakesOfTheConfigurationComeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := agent.New(agent.Config{ServiceURL: "service", Target: "moon"}, agent.Deps{})
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("New() = %v, want four mistakes", err)
	}
}

func TestBothTargetsAreBuilt(t *testing.T) {
	t.Parallel()
	for _, target := range []string{agent.TargetDocker, agent.TargetProcess} {
		c := config(t, &service{Server: &httptest.Server{URL: "http://127.0.0.1:1"}}, "lsp-1")
		c.Backend, c.Target = nil, target
		if _, err := agent.New(c, agent.Deps{}); err != nil {
			t.Errorf("New() for %s = %v", target, err)
		}
	}
}

func TestTheCircuitBreakerShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	tries := make(chan struct{}, 100)
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "0.2")
		w.WriteHeader(http.StatusServiceUnavailable)
		tries <- struct{}{}
	}))
	t.Cleanup(away.Close)
	c := config(t, &service{Server: away}, "lsp-1")
	c.BreakerFailures, c.RequestRetries = 1, 1
	reg := prometheus.NewRegistry()
	a, err := agent.New(c, agent.Deps{Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, nil) }()
	want := `
# HELP longshore_agent_circuit_breaker_open 1 while requests are held back because those before them failed, by call.
# TYPE longshore_agent_circuit_breaker_open gauge
longshore_agent_circuit_breaker_open{call="poll"} 1
`
	deadline := time.After(30 * time.Second)
	for testutil.GatherAndCompare(reg, strings.NewReader(want), "longshore_agent_circuit_breaker_open") != nil {
		select {
		case <-deadline:
			t.Fatal("the breaker did not open")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if n := len(tries); n != 2 {
		t.Errorf("%d requests before the breaker opened, want one and its repetition", n)
	}
	cancel(errors.New("the test is over"))
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
}
