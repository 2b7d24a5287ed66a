package server_test

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// held waits until n calls are held.
func (s *site) held(t testing.TB, n int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		expected := strings.NewReader("# HELP longshore_server_http_requests_held Polls and status calls that wait for something to happen.\n# TYPE longshore_server_http_requests_held gauge\nlongshore_server_http_requests_held " + strconv.Itoa(n) + "\n")
		err := testutil.GatherAndCompare(s.reg, expected, "longshore_server_http_requests_held")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d calls are not held: %v", n, err)
		}
		time.Sleep(time.Millisecond) // polls a condition
	}
}

// later sends a request in the background.
func (s *site) later(t testing.TB, method, path, token string, headers ...string) <-chan reply {
	t.Helper()
	answer := make(chan reply, 1)
	go func() { answer <- s.do(t, method, path, token, "", headers...) }()
	return answer
}

// soon wants an answer long before a held call would end by itself.
func soon(t testing.TB, answer <-chan reply) reply {
	t.Helper()
	select {
	case r := <-answer:
		return r
	case <-time.After(15 * time.Second):
		t.Fatal("no answer to a held call")
		return reply{}
	}
}

func TestHeldPollIsAnsweredWhenWorkArrives(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	answer := s.later(t, "GET", "/api/deployments/poll", s.pool, "Prefer: respond-async, wait=60")
	s.held(t, 1)
	id := s.create(t)
	got := soon(t, answer)
	var work struct{ TypeSpecificID string }
	if got.decode(t, &work); got.code != 200 || work.TypeSpecificID != id || got.header.Get("Preference-Applied") != "wait=60" {
		t.Errorf("held poll = %d %s %v, want deployment %s", got.code, got.body, got.header, id)
	}
	s.held(t, 0)
}

func TestHeldPollEndsWithNoWork(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	start := time.Now()
	got := s.want(t, 204, "GET", "/api/deployments/poll", s.pool, "", "Prefer: wait=1")
	if took := time.Since(start); took < time.Second || got.header.Get("Preference-Applied") != "wait=1" {
		t.Errorf("204 after %v with %v, want it after 1s with the preference applied", took, got.header)
	}
	for prefer, applied := range map[string]string{"wait=0": "wait=0", "wait=x": "", "wait=-3": "", "return=minimal": "", `Wait="0"; x=y`: "wait=0"} {
		got := s.want(t, 204, "GET", "/api/deployments/poll", s.pool, "", "Prefer: "+prefer)
		if got.header.Get("Preference-Applied") != applied {
			t.Errorf("Prefer: %s is applied as %q, want %q", prefer, got.header.Get("Preference-Applied"), applied)
		}
	}
}

func TestHeldStatusIsAnsweredOnCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	work := s.claim(t)
	// More than a minute is held as a minute, and both calls at once.
	answer := s.later(t, "GET", "/api/deployments/"+work.TypeSpecificID+"/status", s.pool, "Prefer: wait=3600")
	other := s.later(t, "GET", "/api/deployments/"+work.TypeSpecificID+"/status", s.pool, "Prefer: wait=60")
	s.held(t, 2)
	s.want(t, 200, "POST", stackPath+"/"+work.TypeSpecificID+"/cancel", s.user, "")
	if got := soon(t, answer); strings.TrimSpace(string(got.body)) != `"failed"` || got.header.Get("Preference-Applied") != "wait=60" {
		t.Errorf("held status = %s %v, want failed", got.body, got.header)
	}
	soon(t, other)
}

func TestStopWork(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	work := s.claim(t)
	poll := s.later(t, "GET", "/api/deployments/poll", s.pool, "Prefer: wait=60")
	status := s.later(t, "GET", "/api/deployments/"+work.TypeSpecificID+"/status", s.pool, "Prefer: wait=60")
	s.held(t, 2)

	s.StopWork()
	if got := soon(t, poll); got.code != 204 || got.header.Get("Retry-After") != "1" {
		t.Errorf("held poll = %d %v, want 204 and Retry-After", got.code, got.header)
	}
	s.held(t, 1)
	s.want(t, 202, "POST", "/api/stacks/default/shop/other/deployments", s.user, simple)
	s.want(t, 204, "GET", "/api/deployments/poll", s.pool, "")
	s.want(t, 200, "GET", "/readyz", "", "")

	s.Drain()
	if got := soon(t, status); got.code != 200 || strings.TrimSpace(string(got.body)) != `"accepted"` {
		t.Errorf("held status = %d %s, want the status as it is", got.code, got.body)
	}
	if got := s.want(t, 200, "GET", "/api/deployments/"+work.TypeSpecificID+"/status", s.pool, "", "Prefer: wait=60"); got.header.Get("Preference-Applied") != "" {
		t.Error("a call that is not held says that it was")
	}
	s.want(t, 503, "GET", "/readyz", "", "")
}

// TestManyAgentsComeBackSpread: a server that stops sends two hundred agents
// away for one to five seconds, and not all for the same time.
func TestManyAgentsComeBackSpread(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	polls := make([]<-chan reply, 200)
	for i := range polls {
		polls[i] = s.later(t, "GET", "/api/deployments/poll", s.pool, "Prefer: wait=60")
	}
	s.held(t, len(polls))
	s.Drain()
	times := map[string]int{}
	for _, poll := range polls {
		times[soon(t, poll).header.Get("Retry-After")]++
	}
	for second, n := range times {
		if !strings.Contains("1 2 3 4 5", second) || n > len(polls)/2 {
			t.Errorf("%d of %d agents come back after %q seconds", n, len(polls), second)
		}
	}
}

// serve runs the server on a port of its own and returns how it ends.
func serve(ctx context.Context, t *testing.T, s *site, drain <-chan struct{}, grace time.Duration) <-chan error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s.url = "http://" + listener.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener, drain, grace) }()
	return ended
}

func TestServeDrains(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	drain := make(chan struct{})
	ended := serve(t.Context(), t, s, drain, time.Minute)
	poll := s.later(t, "GET", "/api/deployments/poll", s.pool, "Prefer: wait=60")
	s.held(t, 1)
	close(drain)
	if got := soon(t, poll); got.code != 204 {
		t.Errorf("held poll = %d, want 204", got.code)
	}
	check(t, <-ended)
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(s.url, "http://"), time.Second); err == nil {
		t.Error("the port is still open")
	}
}

// TestServeCuts: a request that does not end is cut when its time is over.
func TestServeCuts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	drain := make(chan struct{})
	ended := serve(t.Context(), t, s, drain, 50*time.Millisecond)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	check(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("POST " + stackPath + " HTTP/1.1\r\nHost: x\r\nAuthorization: token " + s.user + "\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"))
	check(t, err)
	// The server asks for the body once the handler reads it.
	_, err = conn.Read(make([]byte, 12))
	check(t, err)
	close(drain)
	select {
	case err := <-ended:
		check(t, err)
	case <-time.After(15 * time.Second):
		t.Fatal("a request without a body holds the server")
	}
}

// TestCallerGone: a poll whose caller has gone claims nothing.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/deployments/poll", nil)
	check(t, err)
	req.Header.Set("Authorization", "token "+s.pool)
	req.Header.Set("Prefer", "wait=60")
	gone := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		gone <- err
	}()
	s.held(t, 1)
	cancel()
	if err := <-gone; err == nil {
		t.Fatal("the poll was answered")
	}
	s.held(t, 0)
	id := s.create(t)
	var work struct{ TypeSpecificID string }
	s.want(t, 200, "GET", "/api/deployments/poll", s.pool, "").decode(t, &work)
	if work.TypeSpecificID != id {
		t.Errorf("claimed %q, want %q", work.TypeSpecificID, id)
	}
}
