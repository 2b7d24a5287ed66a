package runner_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/runner"
)

// service is the service's side of one job, with the rules of the real one:
// which step may move where, which log batch fits, what a cancel and an end
// mean. It is both the runner.Job and the runner.Pool of its tests.
type service struct {
	def    api.JobDefinition
	defErr error
	ignore bool // the wish to hold a status call
	away   bool // nothing can be reached

	mu      sync.Mutex
	steps   []api.StepStatus
	logs    map[int][]string
	moves   []string // accepted ones, "0 running"
	beats   int
	late    int        // log lines after the end
	mark    api.Status // what a status call answers, once set
	gone    bool       // the job token is dead
	asked   int        // status calls
	changed chan struct{}
}

func newService(def api.JobDefinition) *service {
	steps := make([]api.StepStatus, max(len(def.Steps), 1))
	for i := range steps {
		steps[i] = api.StepNotStarted
	}
	return &service{def: def, steps: steps, logs: map[int][]string{}, changed: make(chan struct{})}
}

// lock locks and returns the unlock, which wakes who waits for a change.
func (s *service) lock() func() {
	s.mu.Lock()
	return func() {
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

func (s *service) trouble() error {
	switch {
	case s.away:
		return fmt.Errorf("connection refused")
	case s.gone:
		return api.Errorf(http.StatusGone, "the job has ended")
	}
	return nil
}

func (s *service) Definition(context.Context) (api.JobDefinition, error) {
	defer s.lock()()
	if s.defErr != nil {
		return api.JobDefinition{}, s.defErr
	}
	return s.def, s.trouble()
}

func (s *service) Step(_ context.Context, index int, status api.StepStatus) error {
	defer s.lock()()
	if err := s.trouble(); err != nil {
		return err
	}
	if s.steps[index] == status {
		return nil
	}
	if !s.steps[index].CanBecome(status) || slices.Contains(s.steps, api.StepFailed) {
		return api.Errorf(http.StatusConflict, "step %d is %s and cannot become %s", index, s.steps[index], status)
	}
	for i := range index {
		if s.steps[i] != api.StepSucceeded {
			return api.Errorf(http.StatusConflict, "step %d has not succeeded", i)
		}
	}
	s.steps[index] = status
	s.moves = append(s.moves, fmt.Sprintf("%d %s", index, status))
	if status == api.StepFailed {
		s.mark = api.StatusFailed
	}
	return nil
}

func (s *service) RawLogs(_ context.Context, step int, body []byte) error {
	b, err := api.DecodeLogBatch(body)
	if err != nil {
		return err
	}
	defer s.lock()()
	if err := s.trouble(); err != nil {
		return err
	}
	next := int64(len(s.logs[step]))
	if b.Offset > next {
		return &api.Error{Code: http.StatusConflict, Message: "gap", ExpectedOffset: &next}
	}
	for i, line := range b.Lines {
		if b.Offset+int64(i) >= next {
			s.logs[step] = append(s.logs[step], line.Text)
			if s.mark == api.StatusFailed {
				s.late++
			}
		}
	}
	return nil
}

func (s *service) Heartbeat(context.Context) error {
	defer s.lock()()
	if err := s.trouble(); err != nil {
		return err
	}
	s.beats++
	return nil
}

func (s *service) DeploymentStatus(ctx context.Context, _ string, wait time.Duration) (api.Status, bool, error) {
	until := time.After(wait)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	for {
		if s.away {
			return "", false, fmt.Errorf("connection refused")
		}
		if s.mark != "" {
			return s.mark, !s.ignore, nil
		}
		if s.ignore {
			return api.StatusRunning, false, nil
		}
		changed := s.changed
		s.mu.Unlock()
		var done bool
		select {
		case <-changed:
		case <-until:
			done = true
		case <-ctx.Done():
			done = true
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return "", false, ctx.Err()
		}
		if done {
			return api.StatusRunning, true, nil
		}
	}
}

// cancel is a user's wish.
func (s *service) cancel() {
	defer s.lock()()
	s.mark = api.StatusFailed
}

// set changes a field under the lock.
func (s *service) set(change func()) {
	defer s.lock()()
	change()
}

func (s *service) log(step int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.logs[step], "")
}

func (s *service) history() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.moves, ", ")
}

func (s *service) counts() (beats, asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.beats, s.asked
}

// succeed reports steps as an executor does that gets up to and including last.
func (s *service) succeed(last int) {
	for i := 0; i <= last; i++ {
		if i > 0 {
			_ = s.Step(context.Background(), i, api.StepRunning)
			_ = s.RawLogs(context.Background(), i, api.LogBatch{Lines: []api.LogLine{{Text: "$ step\n"}}}.AppendJSON(nil))
		}
		_ = s.Step(context.Background(), i, api.StepSucceeded)
	}
}

var _ interface {
	runner.Job
	runner.Pool
} = (*service)(nil)
