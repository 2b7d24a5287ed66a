package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/cachestore"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/server"
	"github.com/longshore-run/longshore/internal/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}

const (
	stackPath = "/api/stacks/default/shop/prod/deployments"
	agentUA   = "longshore-agent/1.2.3 (linux/amd64; host-a; 17)"
	simple    = `{"operation":"update","sourceContext":{"git":{"repoUrl":"https://git.example/shop.git","branch":"main"}}}`
)

// site is a server over a real control plane and a real database.
type site struct {
	*server.Server
	control *control.Service
	url     string
	reg     *prometheus.Registry
	db      *store.DB
	sealer  control.Sealer
	user    string // tokens
	pool    string
	poolID  string
}

func newSite(t testing.TB) *site {
	t.Helper()
	return newSiteLogging(t, zaptest.NewLogger(t))
}

func newSiteLogging(t testing.TB, log *zap.Logger) *site {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(context.Background(), filepath.Join(dir, "longshore.db"), time.Now)
	check(t, err)
	t.Cleanup(func() { db.Close() })
	key := make([]byte, control.SealKeyBytes)
	rand.Read(key)
	sealer, err := control.NewSealer(key)
	check(t, err)
	bucket, err := blob.OpenFolder("file://"+filepath.Join(dir, "cache"), blob.FolderOptions{Key: key})
	check(t, err)
	t.Cleanup(func() { bucket.Close() })
	s := &site{reg: prometheus.NewRegistry(), db: db, sealer: sealer}
	s.control = control.New(control.Options{
		Store: db, Sealer: sealer, Cache: cachestore.New(cachestore.Options{Bucket: bucket}), Log: log, Registerer: s.reg, PublicURL: "http://longshore.example",
	})
	s.user, err = s.control.Bootstrap(t.Context())
	check(t, err)
	made, err := s.control.CreatePool(t.Context(), "default", api.CreateOrgAgentPoolRequest{Name: "first"})
	check(t, err)
	s.pool, s.poolID = made.TokenValue, made.ID
	s.Server = server.New(server.Options{
		Service: s.control, Log: log, Registerer: s.reg, Gatherer: s.reg,
		Executors: server.NewExecutors(dir), Blobs: bucket.Handler(),
	})
	s.serve(t)
	return s
}

// serve lets the server of s answer at its URL.
func (s *site) serve(t testing.TB) {
	t.Helper()
	web := httptest.NewServer(s.Server)
	t.Cleanup(web.Close)
	s.url = web.URL
}

// reply is an answer, read to its end.
type reply struct {
	code   int
	header http.Header
	body   []byte
}

func (r reply) decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
}

// message returns the message of an error, whose code must be that of the answer.
func (r reply) message(t testing.TB) string {
	t.Helper()
	var e api.Error
	r.decode(t, &e)
	if e.Code != r.code || e.Message == "" {
		t.Errorf("status %d with body %s, want the same code and a message", r.code, r.body)
	}
	return e.Message
}

// do sends one request. Headers are "Name: value".
func (s *site) do(t testing.TB, method, path, token, body string, headers ...string) reply {
	t.Helper()
	return s.send(t, method, path, token, strings.NewReader(body), headers...)
}

func (s *site) send(t testing.TB, method, path, token string, body io.Reader, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
	check(t, err)
	if token != "" {
		req.Header.Set("Authorization", "token "+token)
	}
	req.Header.Set("User-Agent", agentUA)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	check(t, err)
	return reply{resp.StatusCode, resp.Header, content}
}

// want sends one request and wants its answer to have a code.
func (s *site) want(t testing.TB, code int, method, path, token, body string, headers ...string) reply {
	t.Helper()
	r := s.do(t, method, path, token, body, headers...)
	if r.code != code {
		t.Fatalf("%s %s = %d %s, want %d", method, path, r.code, r.body, code)
	}
	return r
}

func (s *site) create(t testing.TB) (id string) {
	t.Helper()
	var made api.CreateDeploymentResponse
	s.want(t, 202, "POST", stackPath, s.user, simple).decode(t, &made)
	return made.ID
}

// claim creates a deployment and claims it.
func (s *site) claim(t testing.TB) (work api.AgentWorkflowDefinition) {
	t.Helper()
	s.create(t)
	s.want(t, 200, "GET", "/api/deployments/poll", s.pool, "").decode(t, &work)
	return work
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func indent(t testing.TB, body []byte) string {
	t.Helper()
	var out bytes.Buffer
	check(t, json.Indent(&out, body, "", "  "))
	return strings.TrimSpace(out.String())
}
