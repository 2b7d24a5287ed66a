package control_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that only tests move. Each reading is a microsecond later
// than the one before, so that rows have an order.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	elapsed time.Duration
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.elapsed += d
}

// Set moves the time as if somebody had set the clock: no time goes by.
func (c *clock) Set(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// Elapsed is the clock that nobody can set.
func (c *clock) Elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elapsed
}

// plane is a control plane over a real database.
type plane struct {
	*control.Service
	db    *store.DB
	clock *clock
	reg   *prometheus.Registry
	dir   string
	key   []byte
	admin control.User
	token string // of admin
}

var (
	org   = "default"
	stack = control.StackRef{Organization: org, Project: "shop", Stack: "prod"}
	agent = control.AgentInfo{Hostname: "host-a", IP: "192.0.2.7", Pid: "17", Platform: "linux/arm64", Version: "1.0.0"}
)

func newPlane(t testing.TB) *plane {
	t.Helper()
	c := newClock()
	p := &plane{dir: t.TempDir(), key: newKey(), clock: c}
	p.begin(t, c.Now)
	t.Cleanup(func() { p.db.Close() })
	return p
}

// newPlaneAt leaves closing the database to the caller, who may be in a bubble.
func newPlaneAt(t testing.TB, dir string, now func() time.Time) *plane {
	t.Helper()
	p := &plane{dir: dir, key: newKey()}
	p.begin(t, now)
	return p
}

func newKey() []byte {
	key := make([]byte, control.SealKeyBytes)
	rand.Read(key)
	return key
}

func (p *plane) begin(t testing.TB, now func() time.Time) {
	t.Helper()
	p.openAt(t, now)
	p.token = try(p.Bootstrap(t.Context()))(t)
	p.admin = try(p.Authenticate(t.Context(), p.token))(t).User
}

// openAt opens the database and makes a service over it.
func (p *plane) openAt(t testing.TB, now func() time.Time) {
	t.Helper()
	p.db = try(store.Open(context.Background(), filepath.Join(p.dir, "longshore.db"), now))(t)
	p.reg = prometheus.NewRegistry()
	var elapsed func() time.Duration
	if p.clock != nil {
		elapsed = p.clock.Elapsed
	}
	p.Service = control.New(control.Options{
		Store: p.db, Sealer: try(control.NewSealer(p.key))(t), Log: zaptest.NewLogger(t), Registerer: p.reg,
		Now: now, Elapsed: elapsed, PublicURL: "http://longshore.example:8480/", Organization: org,
	})
}

// reopen stops the server and starts it again on the same data.
func (p *plane) reopen(t testing.TB) {
	t.Helper()
	if err := p.db.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	p.openAt(t, p.clock.Now)
}

// try returns a function that fails the test if err is not nil.
func try[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, code int) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error = %v, want an answer with status %d", err, code)
	}
}

// request reads a create body.
func request(t testing.TB, text string) (req api.CreateDeploymentRequest) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &req); err != nil {
		t.Fatalf("request: %v", err)
	}
	return req
}

const simple = `{"operation":"update","sourceContext":{"git":{"repoUrl":"https://git.example/shop.git","branch":"main","repoDir":"infra"}}}`

// pool makes a pool and returns who its agents are.
func (p *plane) pool(t testing.TB, name string) control.Principal {
	t.Helper()
	made := try(p.CreatePool(t.Context(), org, api.CreateOrgAgentPoolRequest{Name: name}))(t)
	return try(p.Authenticate(t.Context(), made.TokenValue))(t)
}

func (p *plane) create(t testing.TB, ref control.StackRef, body string) string {
	t.Helper()
	return try(p.CreateDeployment(t.Context(), p.admin, ref, request(t, body), ""))(t).ID
}

// claim polls once without waiting and wants work.
func (p *plane) claim(t testing.TB, pool control.Principal) (*api.AgentWorkflowDefinition, control.Principal) {
	t.Helper()
	work := try(p.Poll(t.Context(), pool, agent, 0))(t)
	if work == nil {
		t.Fatal("Poll() = no work, want a deployment")
	}
	return work, try(p.Authenticate(t.Context(), work.JobToken))(t)
}

func (p *plane) wantNoWork(t testing.TB, pool control.Principal) {
	t.Helper()
	if work := try(p.Poll(t.Context(), pool, agent, 0))(t); work != nil {
		t.Errorf("Poll() = deployment %s, want no work", work.DeploymentID)
	}
}

func (p *plane) status(t testing.TB, ref control.StackRef, id string) api.Status {
	t.Helper()
	return try(p.Deployment(t.Context(), ref, id))(t).Status
}

// finish reports every step of a job as succeeded.
func (p *plane) finish(t testing.TB, job control.Principal, steps int) {
	t.Helper()
	for i := range steps {
		must(t, p.ReportStep(t.Context(), job, job.JobID, i, api.StepRunning))
		must(t, p.ReportStep(t.Context(), job, job.JobID, i, api.StepSucceeded))
	}
}

// simpleSteps is how many steps the definition of simple has.
const simpleSteps = 5
