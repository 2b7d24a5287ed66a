package jobcache_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/cachestore"
	"github.com/longshore-run/longshore/internal/jobcache"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait")) // half a second after an answer to a large body
}

var key = bytes.Repeat([]byte("k"), 32)

const dev = "acme/shop/dev"

// agent is what an agent has over its lives.
type agent struct {
	dir string

	mu   sync.Mutex
	gone map[string]bool // jobs that have ended
}

func (a *agent) inHand(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.gone[id]
}

func (a *agent) end(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone[id] = true
}

// start starts the cache of the agent, until end is called.
func (a *agent) start(t testing.TB, change ...func(*jobcache.Options)) (s *jobcache.Server, end func()) {
	t.Helper()
	b, err := blob.OpenFolder("file://"+filepath.Join(a.dir, "cache"), blob.FolderOptions{Key: key})
	check(t, err)
	o := jobcache.Options{
		Store: cachestore.New(cachestore.Options{Bucket: b}), Blobs: b.Handler(), Key: key,
		Address:  func(context.Context) (string, error) { return "127.0.0.1", nil },
		PortFile: filepath.Join(a.dir, "port"), InHand: a.inHand, Log: zaptest.NewLogger(t),
	}
	for _, f := range change {
		f(&o)
	}
	s, err = jobcache.New(o)
	check(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	end = sync.OnceFunc(func() {
		stop()
		<-done
		check(t, b.Close())
		http.DefaultClient.CloseIdleConnections()
	})
	t.Cleanup(end)
	return s, end
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newAgent(t testing.TB) *agent { return &agent{dir: t.TempDir(), gone: map[string]bool{}} }

func access(t testing.TB, s *jobcache.Server, job, stack string) api.JobCache {
	t.Helper()
	c, err := s.Access(t.Context(), job, stack)
	check(t, err)
	if c.Stack != stack || !strings.HasPrefix(c.URL, "http://127.0.0.1:") || !strings.HasPrefix(c.Token, "lsc-") {
		t.Fatalf("access is %+v", c)
	}
	return c
}

// call makes a call of the API and decodes a good answer into out.
func call(t testing.TB, c api.JobCache, method, path, body string, out any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, strings.NewReader(body))
	check(t, err)
	req.Header.Set("Authorization", "token "+c.Token)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	if strings.HasPrefix(path, "/api/stacks/") && resp.StatusCode != http.StatusOK {
		var e api.Error
		if err := json.Unmarshal(text, &e); err != nil || e.Code != resp.StatusCode || e.Message == "" {
			t.Errorf("%s %s = %d %s", method, path, resp.StatusCode, text)
		}
	}
	if out != nil && resp.StatusCode == http.StatusOK {
		check(t, json.Unmarshal(text, out))
	}
	return resp.StatusCode
}

func path(stack string) string { return "/api/stacks/" + stack + "/deployments/cache" }

func link(t testing.TB, c api.JobCache, method, key, prefix string) (u api.CacheURLResponse) {
	t.Helper()
	body, err := json.Marshal(api.CacheURLRequest{Method: method, Key: key, Prefix: prefix})
	check(t, err)
	if code := call(t, c, "POST", path(c.Stack)+"/url", string(body), &u); code != http.StatusOK {
		t.Fatalf("%s of %s = %d", method, key, code)
	}
	if !strings.HasPrefix(u.URL, c.URL+"/api/blobs?") {
		t.Errorf("the URL is %s, want one of %s", u.URL, c.URL)
	}
	u.URL = strings.TrimPrefix(u.URL, c.URL)
	return u
}

func TestServer(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	s, end := a.start(t)
	c := access(t, s, "job-1", dev)
	if code := call(t, c, "GET", link(t, c, "GET", "npm-1", "npm-").URL, "", nil); code != http.StatusNotFound {
		t.Errorf("of an empty cache: %d, want 404", code)
	}
	if code := call(t, c, "PUT", link(t, c, "PUT", "npm-1", "").URL, "content", nil); code != http.StatusOK {
		t.Errorf("PUT = %d", code)
	}
	u := link(t, c, "GET", "npm-2", "npm-")
	if u.Key != "npm-1" || u.Size != 7 {
		t.Errorf("a partial hit is %+v", u)
	}

	// The next process of the agent serves the job at the same address.
	end()
	s, _ = a.start(t)
	if again := access(t, s, "job-1", dev); again != c {
		t.Errorf("after a restart the job would have %+v, and it has %+v", again, c)
	}
	if code := call(t, c, "GET", u.URL, "", nil); code != http.StatusOK {
		t.Errorf("a URL of before = %d, want 200", code)
	}
	if code := call(t, c, "DELETE", path(dev)+"/entries/npm-1", "", nil); code != http.StatusOK {
		t.Errorf("drop = %d", code)
	}
	if code := call(t, c, "GET", u.URL, "", nil); code != http.StatusNotFound {
		t.Errorf("what was dropped = %d, want 404", code)
	}
	info, err := os.Stat(filepath.Join(a.dir, "port"))
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the port is in a file of mode %v", info.Mode())
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	s, _ := a.start(t)
	c := access(t, s, "job-1", dev)
	other := access(t, s, "job-2", "acme/shop/ops")
	foreign, err := jobcache.New(jobcache.Options{
		Key: bytes.Repeat([]byte("x"), 32), PortFile: filepath.Join(t.TempDir(), "port"),
		Address: func(context.Context) (string, error) { return "127.0.0.1", nil },
	})
	check(t, err)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	foreign.Run(stopped)
	forged, err := foreign.Access(t.Context(), "job-1", dev)
	check(t, err)

	const ask = `{"method":"GET","key":"npm-1"}`
	for name, token := range map[string]string{
		"of another stack":   other.Token,
		"of another agent":   forged.Token,
		"none":               "",
		"the name of one":    "lsc-",
		"cut short":          c.Token[:len(c.Token)-1],
		"of another job":     strings.Replace(c.Token, "lsc-am9iLTE", "lsc-am9iLTI", 1),
		"without its prefix": strings.TrimPrefix(c.Token, "lsc-"),
	} {
		thief := c
		thief.Token = token
		for _, what := range []string{"POST " + path(dev) + "/url", "DELETE " + path(dev) + "/entries/npm-1"} {
			method, path, _ := strings.Cut(what, " ")
			if code := call(t, thief, method, path, ask, nil); code != http.StatusForbidden {
				t.Errorf("%s with a token %s = %d, want 403", what, name, code)
			}
		}
	}
	if code := call(t, c, "POST", path(dev)+"/url", ask, nil); code != http.StatusOK {
		t.Errorf("with the job's token = %d, want 200", code)
	}
	a.end("job-1")
	if code := call(t, c, "POST", path(dev)+"/url", ask, nil); code != http.StatusForbidden {
		t.Errorf("after the job's end = %d, want 403", code)
	}
}

func TestBadCalls(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	s, _ := a.start(t)
	c := access(t, s, "job-1", dev)
	for _, body := range []string{
		"", "[]", `{"method":"HEAD","key":"a"}`, `{"method":"GET"}`, `{"method":"GET","key":"../a"}`,
		`{"method":"GET","key":"a","prefix":"/"}`, `{"method":"GET","key":"` + strings.Repeat("a", 1<<16) + `"}`,
	} {
		if code := call(t, c, "POST", path(dev)+"/url", body, nil); code != http.StatusBadRequest {
			t.Errorf("%.40s = %d, want 400", body, code)
		}
	}
	if code := call(t, c, "DELETE", path(dev)+"/entries/.a", "", nil); code != http.StatusBadRequest {
		t.Errorf("drop of a bad key = %d, want 400", code)
	}
	for _, stack := range []string{"", "dev", "shop/dev", "a/b/c/d", "//"} {
		if _, err := s.Access(t.Context(), "job-1", stack); err == nil || !strings.Contains(err.Error(), "names no stack") {
			t.Errorf("access for stack %q: %v", stack, err)
		}
	}
}

// TestNoAddress: what cannot be listened for now may be later.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	var mu sync.Mutex
	address, why := "", errors.New("the engine is away")
	s, _ := a.start(t, func(o *jobcache.Options) {
		o.Address = func(context.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return address, why
		}
	})
	if _, err := s.Access(t.Context(), "job-1", dev); err == nil || !strings.Contains(err.Error(), "the engine is away") {
		t.Errorf("access without an address: %v", err)
	}
	mu.Lock()
	address, why = "192.0.2.1", nil // of another host
	mu.Unlock()
	if _, err := s.Access(t.Context(), "job-1", dev); err == nil || !strings.Contains(err.Error(), "listen for jobs on 192.0.2.1") {
		t.Errorf("access at an address of another host: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	check(t, err)
	check(t, os.WriteFile(filepath.Join(a.dir, "port"), []byte(port), 0o600))
	mu.Lock()
	address = "127.0.0.1"
	mu.Unlock()
	access(t, s, "job-1", dev) // at another port than the one that was taken meanwhile
}
