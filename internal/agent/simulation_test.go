package agent_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
	"github.com/longshore-run/longshore/internal/ledger"
	"github.com/longshore-run/longshore/internal/poll"
	"github.com/longshore-run/longshore/internal/runner"
)

var simulated = flag.Duration("simulated", 24*time.Hour, "how much time TestDaysOfLoad simulates")

// world is a service of which only the rules are real: it makes a deployment
// every other minute, hands each out once, and is away from time to time. It is
// the poll.Source, the runner.Pool and every runner.Job of the simulation.
type world struct {
	mu      sync.Mutex
	random  *rand.Rand
	away    time.Time // until when nothing can be reached
	made    int
	queue   []string
	states  map[string]api.Status
	cancel  map[string]bool // a cancel was asked for
	steps   map[string][]api.StepStatus
	lines   map[string]int // of the log of step 1
	started map[string]int // by the backend
}

var errAway = errors.New("connection refused")

func (w *world) reach() error {
	if time.Now().Before(w.away) {
		return errAway
	}
	return nil
}

func (w *world) Claim(ctx context.Context, wait time.Duration) (poll.Answer, error) {
	for until := time.Now().Add(wait); ; {
		w.mu.Lock()
		err := w.reach()
		if err == nil && len(w.queue) > 0 {
			id := w.queue[0]
			w.queue = w.queue[1:]
			w.states[id] = api.StatusAccepted
			w.mu.Unlock()
			return poll.Answer{Work: &api.AgentWorkflowDefinition{TypeSpecificID: id, JobID: "job-" + id, JobToken: "lsj-" + id}}, nil
		}
		w.mu.Unlock()
		if err != nil || !time.Now().Before(until) {
			return poll.Answer{WaitApplied: err == nil}, err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return poll.Answer{}, ctx.Err()
		}
	}
}

func (w *world) DeploymentStatus(ctx context.Context, id string, wait time.Duration) (api.Status, bool, error) {
	for until := time.Now().Add(wait); ; {
		w.mu.Lock()
		err, state, cancelled := w.reach(), w.states[id], w.cancel[id]
		w.mu.Unlock()
		if cancelled {
			state = api.StatusFailed
		}
		if err != nil || state.Terminal() || !time.Now().Before(until) {
			return state, err == nil, err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return "", false, ctx.Err()
		}
	}
}

// simulatedJob is the world as one job sees it.
type simulatedJob struct {
	*world
	id string // of the deployment
}

func (j simulatedJob) Definition(context.Context) (api.JobDefinition, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return api.JobDefinition{
		Image: &api.DockerImage{Reference: "acme/pulumi:1"}, Operation: api.OperationPreview,
		Steps: []api.Step{{Name: "Setup"}, {Name: "Only", Run: "true"}},
	}, j.reach()
}

func (j simulatedJob) Step(_ context.Context, index int, status api.StepStatus) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.reach(); err != nil {
		return err
	}
	steps := j.steps[j.id]
	switch {
	case steps[index] == status:
		return nil
	case j.states[j.id].Terminal():
		return api.Errorf(http.StatusGone, "the job has ended")
	case !steps[index].CanBecome(status), index == 1 && steps[0] != api.StepSucceeded:
		return api.Errorf(http.StatusConflict, "step %d is %s", index, steps[index])
	}
	steps[index] = status
	j.states[j.id] = api.StatusRunning
	switch {
	case status == api.StepFailed:
		j.states[j.id] = api.StatusFailed
	case index == 1 && status == api.StepSucceeded:
		j.states[j.id] = api.StatusSucceeded
	}
	return nil
}

func (j simulatedJob) RawLogs(_ context.Context, step int, body []byte) error {
	batch, err := api.DecodeLogBatch(body)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.reach(); err != nil {
		return err
	}
	if step == 1 {
		have := int64(j.lines[j.id])
		if batch.Offset > have {
			return &api.Error{Code: http.StatusConflict, Message: "gap", ExpectedOffset: &have}
		}
		j.lines[j.id] = int(max(have, batch.Offset+int64(len(batch.Lines))))
	}
	return nil
}

func (j simulatedJob) Heartbeat(context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.reach()
}

// until tries a call until it succeeds or is refused, as an executor does.
func until(ctx context.Context, call func() error) error {
	for {
		err := call()
		if !errors.Is(err, errAway) {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

// execute plays the executor: it takes a while, and succeeds, fails, crashes, or
// hangs until it is cancelled.
func (w *world) execute(ctx context.Context, job fake.Job) backend.Exit {
	id := job.File.DeploymentID
	w.mu.Lock()
	w.started[id]++
	takes, how := time.Duration(w.random.Int64N(int64(20*time.Minute))), w.random.IntN(10)
	w.mu.Unlock()
	j := simulatedJob{w, id}
	_ = until(ctx, func() error { return j.Step(ctx, 0, api.StepSucceeded) })
	_ = until(ctx, func() error { return j.Step(ctx, 1, api.StepRunning) })
	select {
	case <-job.Stop:
		how = 1
	case <-ctx.Done():
		return backend.Exit{}
	case <-time.After(takes):
	}
	report := &api.Report{Step: 1, Status: api.StepSucceeded, Delivered: true, Outcome: api.OutcomeSucceeded}
	switch how {
	case 0: // a crash
		return backend.Exit{Code: 2, Reason: "a bug", Report: &api.Report{Step: 1, Status: api.StepRunning}}
	case 1: // a failure, or a cancel
		report.Status, report.Outcome = api.StepFailed, api.OutcomeStepFailed
	}
	_ = until(ctx, func() error { return j.Step(ctx, 1, report.Status) })
	return backend.Exit{Code: report.Outcome.ExitCode(), Report: report}
}

// prepare plays the pull: it takes a while, and fails now and then.
func (w *world) prepare(ctx context.Context, _ backend.Spec, setup io.Writer) error {
	w.mu.Lock()
	takes, fails := time.Duration(w.random.Int64N(int64(10*time.Second))), w.random.IntN(20) == 0
	w.mu.Unlock()
	fmt.Fprintln(setup, "pulling")
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if fails {
		return errors.New("no such image")
	}
	return nil
}

// load makes deployments, cancels and outages until ctx ends.
func (w *world) load(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
		}
		w.mu.Lock()
		for range w.random.IntN(2) {
			id := fmt.Sprintf("d-%d", w.made)
			w.made++
			w.queue = append(w.queue, id)
			w.states[id] = api.StatusNotStarted
			w.steps[id] = []api.StepStatus{api.StepNotStarted, api.StepNotStarted}
		}
		for id, state := range w.states {
			if state == api.StatusRunning && w.random.IntN(200) == 0 {
				w.cancel[id] = true
			}
		}
		if w.random.IntN(120) == 0 { // every two hours or so
			w.away = time.Now().Add(time.Duration(w.random.Int64N(int64(5 * time.Minute))))
		}
		w.mu.Unlock()
	}
}

// usage is what an agent holds.
type usage struct {
	goroutines, files int
	heap              uint64
}

func measure() usage {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, _ := os.ReadDir("/proc/self/fd")
	return usage{runtime.NumGoroutine(), len(files), m.HeapAlloc}
}

// TestDaysOfLoad lets an agent work for a day (see -simulated), in compressed time, and be
// drained and started again every six hours. What it holds must not grow, and
// every deployment must end, having run at most once, with nothing left of it.
func TestDaysOfLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates days")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			random: rand.New(rand.NewPCG(seed, 0)), states: map[string]api.Status{}, cancel: map[string]bool{},
			steps: map[string][]api.StepStatus{}, lines: map[string]int{}, started: map[string]int{},
		}
		memory, err := ledger.Open(filepath.Join(t.TempDir(), "state"))
		if err != nil {
			t.Fatal(err)
		}
		place := fake.New(fake.Script{Executor: w.execute, Prepare: w.prepare})
		loadCtx, stopLoad := context.WithCancel(t.Context())
		var making sync.WaitGroup
		making.Go(func() { w.load(loadCtx) })

		const shift = 6 * time.Hour
		var first, last usage
		for worked := time.Duration(0); worked < *simulated; worked += shift {
			runShift(t, w, place, memory, shift)
			last = measure()
			if worked == 0 {
				first = last
			}
		}
		stopLoad()
		making.Wait()
		runShift(t, w, place, memory, shift) // what is still in the queue

		w.check(t)
		if left := place.Jobs(); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
		if entries, err := memory.All(); err != nil || len(entries) != 0 {
			t.Errorf("the ledger has %v, %v", entries, err)
		}
		t.Logf("%d deployments; after the first shift %+v, after the last %+v", w.made, first, last)
		if last.goroutines > first.goroutines || last.files > first.files {
			t.Errorf("goroutines and files grew from %+v to %+v", first, last)
		}
		// The world itself remembers every deployment: some hundred bytes each.
		if allowed := first.heap + first.heap/10 + uint64(w.made)*2048; last.heap > allowed {
			t.Errorf("the heap grew from %d to %d bytes, want at most %d", first.heap, last.heap, allowed)
		}
	})
}

// runShift runs a process of the agent for a while and drains it.
func runShift(t *testing.T, w *world, place *fake.Backend, memory *ledger.Ledger, lasts time.Duration) {
	t.Helper()
	jobs := runner.New(runner.Options{
		Backend: place, Pool: w, Ledger: memory, ServiceURL: "http://service", DefaultImage: "pulumi/pulumi:latest",
		NewJob: func(id, _ string) runner.Job { return simulatedJob{w, id[len("job-"):]} },
	})
	inHand, err := jobs.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	loop := poll.New(poll.Options{Source: w, Handler: jobs, Slots: 8, ErrorMaxWait: 30 * time.Second})
	drain, ended := make(chan struct{}), make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { ended <- loop.Run(t.Context(), drain, inHand...) })
	for over := time.After(lasts); ; {
		select {
		case <-over:
			close(drain)
			running.Wait()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			jobs.Tidy(t.Context())
			return
		case <-time.After(5 * time.Minute):
			jobs.Tidy(t.Context())
		}
	}
}

func (w *world) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.made == 0 {
		t.Fatal("no load")
	}
	ends := map[api.Status]int{}
	for id, state := range w.states {
		ends[state]++
		if !state.Terminal() {
			t.Errorf("%s is %s: it has not ended (steps %v)", id, state, w.steps[id])
		}
		if n := w.started[id]; n > 1 {
			t.Errorf("%s ran %d times", id, n)
		}
		if state == api.StatusSucceeded && w.started[id] != 1 {
			t.Errorf("%s succeeded and did not run", id)
		}
	}
	t.Logf("ends: %v", ends)
}
