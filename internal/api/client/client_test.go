package client_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "lsp-very-secret-token"

// serve starts a service and returns a client of it that does not wait long.
func serve(t *testing.T, h http.HandlerFunc, change ...func(*client.Options)) *client.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return connect(t, server.URL, change...)
}

func connect(t *testing.T, url string, change ...func(*client.Options)) *client.Client {
	t.Helper()
	o := client.Options{
		BaseURL: url, UserAgent: "longshore-agent/1 (test)", RequestTimeout: 5 * time.Second,
		RetryWait: time.Millisecond, RetryMaxWait: 2 * time.Millisecond, Breaker: client.Breaker{Failures: -1},
	}
	for _, c := range change {
		c(&o)
	}
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func pool(c *client.Client) *client.Pool {
	return c.Pool(func() (string, error) { return token + "\n", nil })
}

func TestBaseURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://api.example.com":           "https://api.example.com",
		" https://api.example.com/ \n":      "https://api.example.com",
		"http://127.0.0.1:8480/api":         "http://127.0.0.1:8480",
		"http://127.0.0.1:8480/api/":        "http://127.0.0.1:8480",
		"https://example.com/pulumi/api//":  "https://example.com/pulumi",
		"https://example.com/rapi":          "https://example.com/rapi",
		"":                                  "!",
		"api.example.com":                   "!",
		"ftp://api.example.com":             "!",
		"https://":                          "!",
		"https://u:hunter2@api.example.com": "!",
		"https://api.example.com?x=hunter2": "!",
		"https://api.example.com:port\x7f":  "!",
	} {
		c, err := client.New(client.Options{BaseURL: in})
		switch {
		case err != nil && want != "!":
			t.Errorf("New(%q): %v", in, err)
		case err == nil && want == "!":
			t.Errorf("New(%q) takes it as %s", in, c.BaseURL())
		case err == nil && c.BaseURL() != want:
			t.Errorf("New(%q) = %s, want %s", in, c.BaseURL(), want)
		case err != nil && strings.Contains(err.Error(), "u:hunter2"):
			t.Errorf("New(%q): the error shows the password: %v", in, err)
		}
	}
}

func TestRequestsOnTheWire(t *testing.T) {
	t.Parallel()
	var got []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Prefer")+" "+r.Header.Get("Content-Type")+" "+string(body))
		if r.Header.Get("Accept") != "application/vnd.pulumi+8" || r.UserAgent() != "longshore-agent/1 (test)" {
			t.Errorf("headers %v", r.Header)
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/poll"):
			w.Header().Set("Preference-Applied", "wait=20")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusNoContent)
		case strings.HasSuffix(r.URL.Path, "/d1/status"):
			_, _ = io.WriteString(w, `"running"`)
		case r.Method == http.MethodGet:
			_, _ = io.WriteString(w, `{"os":"linux","image":"debian","steps":[{"name":"Setup","run":""}],"timeout":"1h0m0s","unknown":1}`)
		default:
			_, _ = io.WriteString(w, `{}`)
		}
	})
	ctx := t.Context()
	result, err := pool(c).Poll(ctx, 20*time.Second)
	if want := (client.PollResult{RetryAfter: 7 * time.Second, WaitApplied: true}); err != nil || result != want {
		t.Errorf("Poll() = %+v, %v, want %+v", result, err, want)
	}
	if s, applied, err := pool(c).DeploymentStatus(ctx, "d1", 0); s != api.StatusRunning || applied || err != nil {
		t.Errorf("DeploymentStatus() = %v, %v, %v", s, applied, err)
	}
	job := c.Job("j/1", "lsj-x")
	d, err := job.Definition(ctx)
	if err != nil || d.Image.Reference != "debian" || d.Timeout.Std() != time.Hour {
		t.Errorf("Definition() = %+v, %v", d, err)
	}
	for what, err := range map[string]error{
		"Step":      job.Step(ctx, 2, api.StepRunning),
		"Logs":      job.Logs(ctx, 2, api.LogBatch{Offset: 3}),
		"Heartbeat": job.Heartbeat(ctx),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	want := []string{
		"GET /api/deployments/poll token lsp-very-secret-token wait=20  ",
		"GET /api/deployments/d1/status token lsp-very-secret-token   ",
		"GET /api/workflow/jobs/j%2F1 token lsj-x   ",
		`PATCH /api/workflow/jobs/j%2F1/2/status token lsj-x  application/json {"status":"running"}`,
		`POST /api/workflow/jobs/j%2F1/2/logs token lsj-x  application/json {"offset":3,"lines":[]}`,
		"POST /api/workflow/jobs/j%2F1/heartbeat token lsj-x  application/json {}",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestPollReturnsWork(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"jobID":"j","jobToken":"lsj-t","oidcToken":"","runID":"r","typeSpecificID":"d","later":{}}`)
	})
	result, err := pool(c).Poll(t.Context(), 0)
	want := api.AgentWorkflowDefinition{JobID: "j", JobToken: "lsj-t", RunID: "r", TypeSpecificID: "d"}
	if err != nil || result.Work == nil || *result.Work != want {
		t.Errorf("Poll() = %+v, %v", result, err)
	}
}

// replies are what a service, or something in front of it, may answer.
var replies = map[string]struct {
	answer                        http.HandlerFunc
	retryable, refused, gone, api bool
	says                          string
}{
	"401":                  {answer: status(401, `{"code":401,"message":"token is revoked"}`), refused: true, gone: true, api: true, says: "token is revoked"},
	"403":                  {answer: status(403, `{"code":403,"message":"not yours"}`), refused: true, gone: true, api: true, says: "not yours"},
	"404":                  {answer: status(404, `{"code":404,"message":"no such job"}`), gone: true, api: true, says: "no such job"},
	"410":                  {answer: status(410, `{}`), gone: true, api: true, says: "410 Gone"},
	"403 of a proxy":       {answer: status(403, `<!DOCTYPE html><html><h1>Blocked</h1>`), retryable: true, says: "a proxy or login page"},
	"404 of a proxy":       {answer: status(404, `<html><h1>No such host</h1>`), retryable: true, says: "web page"},
	"400":                  {answer: status(400, `{"code":400,"message":"bad"}`), api: true, says: "bad"},
	"a token in a message": {answer: status(400, `{"message":"what is `+token+`?"}`), api: true, says: "what is [secret]?"},
	"408":                  {answer: status(408, ``), retryable: true, api: true, says: "408"},
	"429":                  {answer: status(429, ``), retryable: true, api: true, says: "429"},
	"500":                  {answer: status(500, `<h1>oops</h1>`), retryable: true, api: true, says: "<h1>oops</h1>"},
	"503":                  {answer: status(503, ``), retryable: true, api: true, says: "503 Service Unavailable"},
	"200 with HTML":        {answer: status(200, "<html>\n<b>log in "+token+"</b>"), retryable: true, says: "<html> <b>log in [secret]</b>"},
	"200 with broken JSON": {answer: status(200, `{"jobID":"j","jobToken":"lsj-other-secret`), retryable: true, says: "broken JSON"},
	"200 with other JSON":  {answer: status(200, `[1,2]`), retryable: true, says: "does not fit"},
	"a cut reply": {answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"jobID"`)
	}, retryable: true, says: "broke off"},
	"a cut connection": {answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, retryable: true, says: "check the service URL"},
	"a redirect of a reply": {answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://login.example.com/?"+token)
		w.WriteHeader(http.StatusNotModified)
	}, retryable: true, says: "https://login.example.com"},
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func TestErrorsOfEveryReply(t *testing.T) {
	t.Parallel()
	for name, tt := range replies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				tt.answer(w, r)
			})
			check := func(call string, err error, want int32) {
				t.Helper()
				if err == nil {
					t.Fatalf("%s succeeds", call)
				}
				text := err.Error()
				if !strings.Contains(text, tt.says) || strings.Contains(text, token) || strings.Contains(text, "other-secret") || strings.ContainsAny(text, "\n\r") {
					t.Errorf("%s: error %q, want one line with %q and no token", call, text, tt.says)
				}
				if !strings.Contains(text, "/api/") {
					t.Errorf("%s: error %q does not say what was called", call, text)
				}
				var e *api.Error
				if client.Retryable(err) != tt.retryable || client.Refused(err) != tt.refused || client.Gone(err) != tt.gone || errors.As(err, &e) != tt.api {
					t.Errorf("%s: %q is retryable %v, refused %v, gone %v, api %v", call, text, client.Retryable(err), client.Refused(err), client.Gone(err), errors.As(err, &e))
				}
				if got := requests.Swap(0); got != want {
					t.Errorf("%s made %d requests, want %d", call, got, want)
				}
			}
			again := int32(1)
			if tt.retryable {
				again = 3 // and two more
			}
			_, err := pool(c).Poll(t.Context(), 0)
			polls := int32(1)
			if name == "a cut connection" {
				polls = requests.Load() // net/http itself repeats a GET on a connection that it reused
			}
			check("Poll", err, polls)
			_, _, err = pool(c).DeploymentStatus(t.Context(), "d", 0)
			check("DeploymentStatus", err, max(again, requests.Load()))
			if name == "200 with other JSON" {
				return // the next calls do not look into it
			}
			check("Logs", c.Job("j", token).Logs(t.Context(), 1, api.LogBatch{}), 1)
			check("Step", c.Job("j", token).Step(t.Context(), 1, api.StepRunning), again)
			check("Heartbeat", c.Job("j", token).Heartbeat(t.Context()), again)
		})
	}
}

func TestPollNeverTakesNonsenseForNoWork(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, `null`, `{}`, `{"jobID":"j"}`, `"ok"`} {
		c := serve(t, status(200, body))
		if r, err := pool(c).Poll(t.Context(), 0); err == nil || !client.Retryable(err) {
			t.Errorf("Poll() of %q = %+v, %v", body, r, err)
		}
	}
}

func TestConflictCarriesTheExpectedOffset(t *testing.T) {
	t.Parallel()
	c := serve(t, status(409, `{"code":409,"message":"gap","expectedOffset":17}`))
	var e *api.Error
	if err := c.Job("j", token).RawLogs(t.Context(), 1, []byte(`{}`)); !errors.As(err, &e) || e.ExpectedOffset == nil || *e.ExpectedOffset != 17 {
		t.Errorf("RawLogs() = %v", err)
	}
}

func TestSucceedsOnceTheServiceIsBack(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) < 5 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, `{}`)
	}, func(o *client.Options) { o.Retries = -1 })
	if err := c.Job("j", token).Step(t.Context(), 1, api.StepRunning); err != nil || n.Load() != 5 {
		t.Errorf("Step() = %v after %d requests", err, n.Load())
	}
}

func TestTheCallerEndsIt(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{}, 10)
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	_, err := pool(c).Poll(ctx, time.Minute)
	if !errors.Is(err, context.Canceled) || client.Retryable(err) {
		t.Errorf("Poll() = %v, retryable %v", err, client.Retryable(err))
	}
}

func TestABlackholeIsATimeout(t *testing.T) {
	t.Parallel()
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		func(o *client.Options) { o.RequestTimeout = 20 * time.Millisecond })
	_, err := pool(c).Poll(t.Context(), 0)
	var e *client.Error
	if !client.Retryable(err) || !errors.As(err, &e) || e.Outcome != client.OutcomeTimeout {
		t.Errorf("Poll() = %v", err)
	}
}

func TestRedirectsNeverCarryATokenElsewhere(t *testing.T) {
	t.Parallel()
	var seen sync.Map
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Method+" "+r.URL.Path, r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, `{}`)
	}))
	defer elsewhere.Close()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/moved/") {
			body, _ := io.ReadAll(r.Body)
			if r.Header.Get("Authorization") != "token "+token || r.Method == http.MethodPost && string(body) != `{"offset":0,"lines":[]}` {
				t.Errorf("%s %s: %v %s", r.Method, r.URL, r.Header, body)
			}
			_, _ = io.WriteString(w, `{"image":"x"}`)
			return
		}
		to := elsewhere.URL
		if strings.Contains(r.URL.Path, "/same") {
			to = "/moved"
		}
		http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
	})
	if _, err := c.Job("same", token).Definition(t.Context()); err != nil {
		t.Errorf("a redirect on the same host: %v", err)
	}
	if err := c.Job("same", token).Logs(t.Context(), 1, api.LogBatch{}); err != nil {
		t.Errorf("a redirect of a POST on the same host: %v", err)
	}
	_, _ = c.Job("other", token).Definition(t.Context())
	if err := c.Job("other", token).Logs(t.Context(), 1, api.LogBatch{}); err == nil || !strings.Contains(err.Error(), elsewhere.URL) {
		t.Errorf("Logs() sent elsewhere = %v, want an error that names the place", err)
	}
	got := map[any]any{}
	seen.Range(func(k, v any) bool { got[k] = v; return true })
	if diff := cmp.Diff(map[any]any{"GET /api/workflow/jobs/other": ""}, got); diff != "" {
		t.Errorf("what the other host saw (-want +got):\n%s", diff)
	}
}

func TestExecutor(t *testing.T) {
	t.Parallel()
	program := append([]byte("\x7fELF"), bytes.Repeat([]byte("program "), 100000)...)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(program)
	_ = z.Close()
	for name, tt := range map[string]struct {
		body []byte
		says string // "" for success
	}{
		"a gzip file":       {body: packed.Bytes()},
		"a program":         {body: program},
		"a page":            {body: []byte("<html>"), says: "no executor"},
		"nothing":           {body: nil, says: "no executor"},
		"half a gzip file":  {body: packed.Bytes()[:packed.Len()/2], says: "unexpected EOF"},
		"a gzip head alone": {body: packed.Bytes()[:5], says: "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("arch") != "arm64" {
					t.Errorf("asked for %s", r.URL)
				}
				_, _ = w.Write(tt.body)
			})
			got, err := func() ([]byte, error) {
				f, err := pool(c).Executor(t.Context(), "arm64")
				if err != nil {
					return nil, err
				}
				defer f.Close()
				return io.ReadAll(f)
			}()
			if tt.says == "" && (err != nil || !bytes.Equal(got, program)) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("error = %v, want %q", err, tt.says)
			}
		})
	}
}

func TestAnExecutorDownloadThatStandsStillFails(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(append([]byte("\x7fELF"), make([]byte, 100)...))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, func(o *client.Options) { o.RequestTimeout = 50 * time.Millisecond })
	f, err := pool(c).Executor(t.Context(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadAll(f); err == nil || !strings.Contains(err.Error(), "nothing came") {
		t.Errorf("ReadAll() = %v", err)
	}
}

func TestTokensThatCannotBeSent(t *testing.T) {
	t.Parallel()
	c := serve(t, status(200, `{}`))
	for name, read := range map[string]func() (string, error){
		"empty":      func() (string, error) { return " \n", nil },
		"two lines":  func() (string, error) { return "lsp-one\nlsp-two", nil },
		"unreadable": func() (string, error) { return "", errors.New("file is gone") },
	} {
		_, err := c.Pool(read).Poll(t.Context(), 0)
		if err == nil || client.Retryable(err) || strings.Contains(err.Error(), "lsp-") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Job("j", "").Heartbeat(t.Context()); err == nil {
		t.Error("an empty job token is sent")
	}
}

// TestABodyIsNotReadOnceTheCallIsOver is for the race detector: a server that
// answers before it has read everything must not leave the transport reading
// memory that the caller uses again.
func TestABodyIsNotReadOnceTheCallIsOver(t *testing.T) {
	t.Parallel()
	c := serve(t, status(413, `{}`))
	body := make([]byte, 4<<20)
	for range 20 {
		if err := c.Job("j", token).RawLogs(t.Context(), 1, body); err == nil {
			t.Fatal("RawLogs succeeds")
		}
		clear(body)
	}
}

type outcomes struct {
	mu   sync.Mutex
	seen []string
}

func (o *outcomes) Request(call, outcome string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, call+" "+outcome)
}

func TestTheObserverHearsOfEachRequest(t *testing.T) {
	t.Parallel()
	var o outcomes
	var n atomic.Int32
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, `{}`)
	}, func(op *client.Options) { op.Observer = &o })
	_ = c.Job("j", token).Heartbeat(t.Context())
	_, _ = pool(c).Poll(t.Context(), 0)
	want := []string{"heartbeat unavailable", "heartbeat ok", "poll garbled"}
	if diff := cmp.Diff(want, o.seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
