package proxy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/e2e/faults/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const answer = `{"word":"an answer that is long enough to be cut in two"}`

// service answers everything and remembers what it was asked.
type service struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
}

func newService(t *testing.T) *service {
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.bodies = append(s.bodies, string(body))
		s.mu.Unlock()
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.bodies...)
}

// through sends one log batch through a proxy in front of s that does f.
func (s *service) through(t *testing.T, f proxy.Fault) (*http.Response, string, error) {
	t.Helper()
	p, err := proxy.New(t.Context(), s.Listener.Addr().String(), proxy.PlanFunc(func(proxy.Class, *http.Request) proxy.Fault { return f }))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	res, err := client.Post(p.URL()+"/api/workflow/jobs/j/1/logs", "application/json", strings.NewReader(`{"offset":0}`))
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	kind := f.Kind
	if kind == "" || f.Over == 12 {
		kind = proxy.Pass
	}
	if n := p.Counts()[proxy.Logs][kind]; n != 1 {
		t.Errorf("counted %d faults of the kind, want 1: %v", n, p.Counts())
	}
	return res, string(body), err
}

func TestFaults(t *testing.T) {
	t.Parallel()
	whole := `{"offset":0}`
	tests := map[string]struct {
		fault  proxy.Fault
		asked  []string // what the server got
		code   int      // 0: the call fails
		body   string
		breaks bool // reading the answer fails
	}{
		"nothing happens":                         {proxy.Fault{}, []string{whole}, 200, answer, false},
		"a cut reaches nobody":                    {proxy.Fault{Kind: proxy.Cut}, nil, 0, "", false},
		"a delay passes afterwards":               {proxy.Fault{Kind: proxy.Delay, For: time.Millisecond}, []string{whole}, 200, answer, false},
		"a lost answer was asked for":             {proxy.Fault{Kind: proxy.Drop}, []string{whole}, 0, "", false},
		"twice":                                   {proxy.Fault{Kind: proxy.Twice}, []string{whole, whole}, 200, answer, false},
		"twice at the same time":                  {proxy.Fault{Kind: proxy.Together}, []string{whole, whole}, 200, answer, false},
		"half a request is none":                  {proxy.Fault{Kind: proxy.HalfRequest}, nil, 0, "", false},
		"half an answer breaks":                   {proxy.Fault{Kind: proxy.HalfAnswer}, []string{whole}, 200, "", true},
		"a truncated answer looks whole":          {proxy.Fault{Kind: proxy.Truncate}, []string{whole}, 200, answer[:len(answer)/2], false},
		"an error in the server's place":          {proxy.Fail(502), nil, 502, `{"code":502,"message":"the proxy says Bad Gateway"}`, false},
		"what is not too large passes":            {proxy.TooLarge(12), []string{whole}, 200, answer, false},
		"what is too large does not":              {proxy.TooLarge(11), nil, 413, `{"code":413,"message":"the proxy says Request Entity Too Large"}`, false},
		"a page in the server's place":            {proxy.Page(), nil, 200, proxy.Page().Body, false},
		"a blackhole that ends is a broken call":  {proxy.Fault{Kind: proxy.Blackhole, For: time.Millisecond}, nil, 0, "", false},
		"429 says when, in whatever words it has": {proxy.Throttle("-1"), nil, 429, `{"code":429,"message":"the proxy says Too Many Requests"}`, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			res, body, err := s.through(t, tt.fault)
			switch {
			case tt.code == 0:
				if err == nil || res != nil {
					t.Errorf("answer %v, want a broken connection", res)
				}
			case tt.breaks:
				if err == nil {
					t.Errorf("the whole answer came: %q", body)
				}
			case err != nil:
				t.Error(err)
			case res.StatusCode != tt.code || body != tt.body || res.Header.Get("Retry-After") != tt.fault.RetryAfter:
				t.Errorf("answer %d %q, Retry-After %q; want %d %q", res.StatusCode, body, res.Header.Get("Retry-After"), tt.code, tt.body)
			}
			if got := s.asked(); fmt.Sprint(got) != fmt.Sprint(tt.asked) {
				t.Errorf("the server got %q, want %q", got, tt.asked)
			}
		})
	}
}

func TestABlackholeLastsUntilTheCallerOrTheProxyGivesUp(t *testing.T) {
	t.Parallel()
	s := newService(t)
	in := make(chan struct{}, 2)
	p, err := proxy.New(t.Context(), s.Listener.Addr().String(), proxy.PlanFunc(func(proxy.Class, *http.Request) proxy.Fault {
		in <- struct{}{}
		return proxy.Fault{Kind: proxy.Blackhole}
	}))
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	for range 2 {
		go func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			_, err := client.Get(p.URL() + "/api/deployments/poll") //nolint:bodyclose // there is none
			failed <- err
		}()
		<-in
	}
	p.Close()
	for range 2 {
		if err := <-failed; err == nil {
			t.Error("a call through a closed proxy succeeded")
		}
	}
	if got := s.asked(); len(got) != 0 {
		t.Errorf("the server got %q", got)
	}
}

func TestAServerThatIsAwayIsABrokenConnection(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.Close()
	if _, _, err := s.through(t, proxy.Fault{}); err == nil {
		t.Error("an answer came from nowhere")
	}
}

func TestClassOf(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]proxy.Class{
		"GET /api/deployments/poll":            proxy.Poll,
		"GET /api/deployments/d/status":        proxy.Status,
		"GET /api/deployments/executor?arch=x": proxy.Other,
		"GET /api/workflow/jobs/j":             proxy.Definition,
		"PATCH /api/workflow/jobs/j/2/status":  proxy.Steps,
		"POST /api/workflow/jobs/j/2/logs":     proxy.Logs,
		"POST /api/workflow/jobs/j/heartbeat":  proxy.Heartbeat,
		"POST /api/stacks/o/p/s/deployments":   proxy.Other,
		"POST /api/workflow/jobs/j":            proxy.Other,
	} {
		method, path, _ := strings.Cut(line, " ")
		if got := proxy.ClassOf(httptest.NewRequest(method, path, nil)); got != want {
			t.Errorf("%s is %s, want %s", line, got, want)
		}
	}
}

func TestASeedIsAScheduleThatCanBeRepeated(t *testing.T) {
	t.Parallel()
	rates := map[proxy.Class][]proxy.Rate{
		proxy.Poll: {{Chance: 0.2, Fault: proxy.Fault{Kind: proxy.Cut}}, {Chance: 0.3, Fault: proxy.Fail(503)}},
		proxy.Logs: {{Chance: 1, Fault: proxy.Fault{Kind: proxy.Drop}}},
	}
	draw := func(plan proxy.Plan, class proxy.Class, n int) (kinds string, counts map[proxy.Kind]int) {
		counts = map[proxy.Kind]int{}
		for range n {
			k := plan.Choose(class, nil).Kind
			kinds += string(k) + " "
			counts[k]++
		}
		return kinds, counts
	}
	one, counts := draw(proxy.Seeded(7, rates), proxy.Poll, 1000)
	mixed := proxy.Seeded(7, rates)
	draw(mixed, proxy.Logs, 13) // other classes do not matter
	if again, _ := draw(mixed, proxy.Poll, 1000); again != one {
		t.Error("the same seed made another schedule")
	}
	if other, _ := draw(proxy.Seeded(8, rates), proxy.Poll, 1000); other == one {
		t.Error("another seed made the same schedule")
	}
	if counts[proxy.Cut] < 150 || counts[proxy.Cut] > 250 || counts[proxy.Answer] < 240 || counts[proxy.Answer] > 360 {
		t.Errorf("chances of 0.2 and 0.3 made %v of 1000", counts)
	}
	if _, counts := draw(mixed, proxy.Logs, 10); counts[proxy.Drop] != 10 {
		t.Errorf("a chance of 1 made %v of 10", counts)
	}
	if _, counts := draw(mixed, proxy.Steps, 10); counts[proxy.Pass] != 10 {
		t.Errorf("no rates made %v of 10", counts)
	}
}

func TestAPlanCanBeReplaced(t *testing.T) {
	t.Parallel()
	s := newService(t)
	p, err := proxy.New(t.Context(), s.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, code := range []int{503, 200} {
		plan := proxy.Plan(nil)
		if code != 200 {
			plan = proxy.PlanFunc(func(proxy.Class, *http.Request) proxy.Fault { return proxy.Fail(code) })
		}
		p.Follow(plan)
		res, err := client.Get(p.URL() + "/x")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != code {
			t.Errorf("status %d, want %d", res.StatusCode, code)
		}
	}
}

// echo is a daemon on a unix socket that sends back what it gets.
func echo(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "daemon.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(func() { l.Close() })
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	return path
}

func TestLink(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "link.sock")
	l, err := proxy.NewLink(t.Context(), "unix", path, echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() net.Conn {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	say := func(conn net.Conn, word string) {
		t.Helper()
		if err := json.NewEncoder(conn).Encode(word); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(conn net.Conn) (word string, err error) {
		return word, json.NewDecoder(conn).Decode(&word)
	}

	conn := dial()
	say(conn, "up")
	if word, err := hear(conn); word != "up" {
		t.Fatalf("heard %q, %v", word, err)
	}

	l.Hang()
	say(conn, "hanging")
	fresh := dial()
	say(fresh, "fresh")
	for _, c := range []net.Conn{conn, fresh} {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if word, err := hear(c); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("heard %q, %v through a link that hangs", word, err)
		}
		_ = c.SetReadDeadline(time.Time{})
	}

	l.Up()
	for c, want := range map[net.Conn]string{conn: "hanging", fresh: "fresh"} {
		if word, err := hear(c); word != want {
			t.Errorf("heard %q, %v, want %q: nothing is lost by hanging", word, err, want)
		}
	}

	l.Down()
	if word, err := hear(conn); err == nil {
		t.Errorf("heard %q through a broken connection", word)
	}
	if word, err := hear(dial()); err == nil {
		t.Errorf("heard %q through a link that is down", word)
	}

	l.Up()
	conn = dial()
	say(conn, "again")
	if word, err := hear(conn); word != "again" {
		t.Errorf("heard %q, %v", word, err)
	}
}
