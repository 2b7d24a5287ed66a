package executor_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

const jobToken = "lsj-the-token-of-this-job"

// service speaks the reporting calls of PROTOCOL 4 and is as strict as
// Longshore's own: offsets without gaps, statuses in order, the right token.
type service struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	statuses []string
	lines    map[int][]api.LogLine
	digest   func(step int, text string) // sees each line instead of lines, when set
	counts   map[int]int64
	beats    int
	away     bool // answers 503
	gone     bool // answers 410
	refused  int  // calls answered while away or gone
	gaps     bool // a gap is no mistake
	changed  *sync.Cond
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{t: t, lines: map[int][]api.LogLine{}, counts: map[int]int64{}}
	s.changed = sync.NewCond(&s.mu)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Broadcast()
	answer := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	if r.Header.Get("Authorization") != "token "+jobToken {
		s.t.Errorf("%s %s came with Authorization %q", r.Method, r.URL.Path, r.Header.Get("Authorization"))
		answer(401, api.Errorf(401, "who are you"))
		return
	}
	if s.gone || s.away {
		s.refused++
		code := map[bool]int{true: 410, false: 503}[s.gone]
		answer(code, api.Errorf(code, "not now"))
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/workflow/jobs/job-1/")
	if !ok {
		answer(404, api.Errorf(404, "no such path"))
		return
	}
	if rest == "heartbeat" && r.Method == http.MethodPost {
		s.beats++
		answer(200, struct{}{})
		return
	}
	number, call, _ := strings.Cut(rest, "/")
	step, err := strconv.Atoi(number)
	switch {
	case err != nil:
		answer(404, api.Errorf(404, "no such path"))
	case call == "status" && r.Method == http.MethodPatch:
		var status struct{ Status api.StepStatus }
		_ = json.Unmarshal(body, &status)
		s.statuses = append(s.statuses, fmt.Sprintf("%d %s", step, status.Status))
		answer(200, struct{}{})
	case call == "logs" && r.Method == http.MethodPost:
		s.append(step, body, answer)
	default:
		answer(404, api.Errorf(404, "no such path"))
	}
}

func (s *service) append(step int, body []byte, answer func(int, any)) {
	batch, err := api.DecodeLogBatch(body)
	if err != nil {
		s.t.Errorf("log batch: %v", err)
		answer(400, api.Errorf(400, "bad batch"))
		return
	}
	next := s.counts[step]
	if batch.Offset > next {
		if !s.gaps {
			s.t.Errorf("step %d: a gap, offset %d where %d comes next", step, batch.Offset, next)
		}
		e := api.Errorf(409, "gap")
		e.ExpectedOffset = &next
		answer(409, e)
		return
	}
	for i, line := range batch.Lines {
		if batch.Offset+int64(i) < next {
			continue
		}
		s.counts[step]++
		if s.digest != nil {
			s.digest(step, line.Text)
			continue
		}
		s.lines[step] = append(s.lines[step], line)
	}
	answer(200, struct{}{})
}

func (s *service) log(step int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logLocked(step)
}

func (s *service) logLocked(step int) string {
	var b strings.Builder
	for _, l := range s.lines[step] {
		b.WriteString(l.Text)
	}
	return b.String()
}

func (s *service) reported() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.statuses...)
}

func (s *service) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// await returns when cond holds. cond is called with the service's lock held.
func (s *service) await(what string, cond func() bool) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	expired := false
	timer := time.AfterFunc(30*time.Second, func() { s.set(func() { expired = true }); s.changed.Broadcast() })
	defer timer.Stop()
	for !cond() {
		if expired {
			s.t.Errorf("gave up waiting for %s; statuses %q, log of step 1:\n%s", what, s.statuses, s.logLocked(1))
			return
		}
		s.changed.Wait()
	}
}

func (s *service) awaitLog(step int, text string) {
	s.t.Helper()
	s.await(fmt.Sprintf("%q in the log of step %d", text, step), func() bool { return strings.Contains(s.logLocked(step), text) })
}
