package faults_test

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/faults/proxy"
	"github.com/longshore-run/longshore/internal/api"
)

// TestAServiceThatMisbehavesForAWhileLosesNothing: in the middle of a running
// operation every answer goes wrong for some seconds. The operation goes on, and
// afterwards everything it printed is there.
func TestAServiceThatMisbehavesForAWhileLosesNothing(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]proxy.Fault{
		"503":                             proxy.Fail(503),
		"a blackhole":                     {Kind: proxy.Blackhole},
		"the page of a portal":            proxy.Page(),
		"half of every answer":            {Kind: proxy.Truncate},
		"broken connections":              {Kind: proxy.Cut},
		"answers that are lost":           {Kind: proxy.HalfAnswer},
		"429 with a date of the past":     proxy.Throttle("Mon, 02 Jan 2006 15:04:05 GMT"),
		"429 with a negative Retry-After": proxy.Throttle("-30"),
		"429 with an odd Retry-After":     proxy.Throttle("soon"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.agent()
			id := s.create(request(printing("800", "200")))
			s.until(id, " line 0 ")
			// The poll of a free slot is left alone: its answer is a claim.
			s.proxy.Follow(proxy.PlanFunc(func(class proxy.Class, _ *http.Request) proxy.Fault {
				if class == proxy.Poll {
					return proxy.Fault{}
				}
				return f
			}))
			bad := time.NewTimer(3 * time.Second)
			defer bad.Stop()
			<-bad.C
			s.proxy.Follow(nil)
			status, log := s.end(id)
			if status != api.StatusSucceeded {
				t.Errorf("status = %s, want succeeded\n%s", status, log)
			}
			whole(t, log, 800)
			if n := count(log, began); n != 1 {
				t.Errorf("the operation began %d times", n)
			}
			if n := count(log, interrupted); n != 0 {
				t.Errorf("the operation got %d interrupts", n)
			}
		})
	}
}

func TestAJobTokenThatIsRefusedEndsTheJobByTheLadder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.agent()
	record := t.TempDir() + "/record"
	variables := printing("2000", "20")
	variables["PULUMI_STANDIN_RECORD"] = record
	id := s.create(request(variables))
	s.until(id, " line 0 ")
	s.proxy.Follow(proxy.PlanFunc(func(class proxy.Class, _ *http.Request) proxy.Fault {
		if class == proxy.Logs || class == proxy.Steps || class == proxy.Heartbeat {
			return proxy.Fail(401)
		}
		return proxy.Fault{}
	}))
	waitFor(t, record, `"exit":255`)
	content := read(t, record)
	if n, m := count(content, interrupted), count(content, terminated); n != 1 || m != 0 {
		t.Errorf("the operation got %d interrupts and %d SIGTERM, want one and none:\n%s", n, m, content)
	}
	s.settle()
}

func TestAPoolTokenThatIsRefusedLetsRunningJobsFinish(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.agent("--concurrency", "2")
	id := s.create(request(printing("400", "200")))
	s.until(id, " line 0 ")
	s.proxy.Follow(proxy.PlanFunc(func(class proxy.Class, _ *http.Request) proxy.Fault {
		if class == proxy.Poll || class == proxy.Status {
			return proxy.Fail(401)
		}
		return proxy.Fault{}
	}))
	status, log := s.end(id)
	if status != api.StatusSucceeded || count(log, interrupted) != 0 {
		t.Errorf("status = %s, want succeeded without an interrupt\n%s", status, log)
	}
	whole(t, log, 400)
	select {
	case <-a.Done():
		if a.ExitCode() != 3 {
			t.Errorf("exit code %d, want 3", a.ExitCode())
		}
	case <-s.bounded().Done():
		t.Error("the agent goes on after its token was refused")
	}
}

// copied is a way to the server of s that keeps a copy of every poll's answer
// that brings work.
func (s *site) copied() (through http.Handler, answers <-chan []byte) {
	s.t.Helper()
	target, err := url.Parse(s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	kept := make(chan []byte, 1)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.ModifyResponse = func(res *http.Response) error {
		if res.Request.URL.Path != "/api/deployments/poll" || res.StatusCode != http.StatusOK {
			return nil
		}
		body, err := io.ReadAll(res.Body)
		res.Body = io.NopCloser(bytes.NewReader(body))
		select {
		case kept <- body:
		default:
		}
		return err
	}
	return proxy, kept
}

// TestADeploymentThatIsDeliveredAgainRunsOnce: something between the server and
// two agents keeps the answer to a poll, and gives it to the other one when the
// first has begun.
func TestADeploymentThatIsDeliveredAgainRunsOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	through, answers := s.copied()
	var again atomic.Bool
	given := make(chan struct{})
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/deployments/poll" || !again.CompareAndSwap(true, false) {
			through.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(<-answers)
		close(given)
	}))
	t.Cleanup(between.Close)
	for range 2 { // the one that has its hands full does not poll
		s.agent("--concurrency", "1", "--service-url", between.URL)
	}
	record := t.TempDir() + "/record"
	variables := printing("800", "200")
	variables["PULUMI_STANDIN_RECORD"] = record
	id := s.create(request(variables))
	waitFor(t, record, began)
	again.Store(true)
	select {
	case <-given:
	case <-s.bounded().Done():
		t.Fatal("nobody polls")
	}
	status, text := s.end(id)
	s.settle()
	if status != api.StatusSucceeded {
		t.Errorf("status = %s, want succeeded\n%s", status, text)
	}
	whole(t, text, 800)
	if content := read(t, record); count(content, began) != 1 || count(content, interrupted) != 0 {
		t.Errorf("the operation did not run once and undisturbed:\n%s", content)
	}
}

func TestCancelAfterTheEndChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.agent()
	id := s.create(request(nil))
	before, _ := s.end(id)
	_ = s.Cancel(s.bounded(), stack, id) // whatever it says
	if after, log := s.end(id); before != api.StatusSucceeded || after != before {
		t.Errorf("it was %s and is %s\n%s", before, after, log)
	}
}

func TestCancelBeforeTheOperationNeverStartsIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.agent()
	id := s.create(request(nil, "echo now; sleep 60"))
	s.until(id, "now\n")
	began := time.Now()
	if err := s.Cancel(s.bounded(), stack, id); err != nil {
		t.Fatal(err)
	}
	status, log := s.end(id)
	if status != api.StatusFailed || strings.Contains(log, `"event":"start"`) || !strings.Contains(strings.ToLower(log), "cancel") {
		t.Errorf("status = %s, want failed, and no operation\n%s", status, log)
	}
	if time.Since(began) > 50*time.Second {
		t.Errorf("the command ran to its end")
	}
}

// TestADeploymentThatIsDeliveredTwiceAtOnceRunsOnce: the answer to one poll
// reaches two agents in the same moment.
func TestADeploymentThatIsDeliveredTwiceAtOnceRunsOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	through, answers := s.copied()
	var polls atomic.Int64
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/deployments/poll" || polls.Add(1) != 2 {
			through.ServeHTTP(w, r)
			return
		}
		select { // the second poll gets the answer to the first
		case body := <-answers:
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(between.Close)
	for range 2 {
		s.agent("--service-url", between.URL)
	}
	ctx := s.bounded()
	for polls.Load() < 2 {
		select {
		case <-ctx.Done():
			t.Fatal("the agents do not poll")
		case <-time.After(10 * time.Millisecond):
		}
	}
	record := t.TempDir() + "/record"
	variables := printing("200", "200")
	variables["PULUMI_STANDIN_RECORD"] = record
	id := s.create(request(variables))
	status, text := s.end(id)
	s.settle()
	if status != api.StatusSucceeded {
		t.Errorf("status = %s, want succeeded\n%s", status, text)
	}
	whole(t, text, 200)
	if content := read(t, record); count(content, began) != 1 || count(content, interrupted) != 0 {
		t.Errorf("the operation did not run once and undisturbed:\n%s", content)
	}
}
