package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// ledger is what the server has answered for. It outlives every server.
type ledger struct {
	mu      sync.Mutex
	created []string        // ids of deployments that a create was answered with
	jobs    map[string]*job // by id of the job, those whose claim was answered
	defined map[string]string
}

// job is what was answered for of one job, and what its runner did last.
type job struct {
	id, deployment, token string

	taken    bool // by a runner
	defined  bool
	running  int // steps that were reported as running, so 1 means step 0
	ended    int // as succeeded
	lines    int // of the log of step 0
	finished bool
	dead     bool // its claim was taken back
}

// killSteps is how many steps the jobs of these tests have.
const killSteps = 4

// TestKilledServer kills the real server with SIGKILL again and again while
// deployments are created, claimed, reported and logged. Whatever was answered
// with success is there after the next start, no deployment is defined under
// two jobs, and in the end each one has succeeded with a whole log, those whose
// answers were lost included.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number will do
	if text := os.Getenv("LONGSHORE_TEST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		check(t, err)
	}
	t.Logf("LONGSHORE_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // replayable on purpose
	kills := 10
	if testing.Short() {
		kills = 3
	}
	dir := t.TempDir()
	p, user, pool := serving(t, dir, "--claim-timeout=500ms")
	l := &ledger{jobs: map[string]*job{}, defined: map[string]string{}}
	for range kills {
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for range 2 {
			load.Go(func() { l.create(ctx, p, user) })
			load.Go(func() { l.run(ctx, t, p, pool) })
			load.Go(func() { l.run(ctx, t, p, pool) })
		}
		time.Sleep(time.Duration(50+random.IntN(700)) * time.Millisecond) // the load runs meanwhile
		check(t, p.Process.Kill())
		<-p.output
		_ = p.Wait() // killed, as it was told
		stop()
		load.Wait()
		p = start(t, "serve", "--data-dir", dir, "--claim-timeout=500ms")
		l.verify(t, p, user)
	}

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() { l.run(ctx, t, p, pool) })
	}
	for deadline := time.Now().Add(40 * time.Second); !l.allEnded(t, p, user); time.Sleep(50 * time.Millisecond) { // polls a condition
		if time.Now().After(deadline) {
			t.Error("not every deployment has ended")
			break
		}
	}
	stop()
	load.Wait()
	l.verify(t, p, user)
	t.Logf("%d deployments created, %d jobs, %d claims taken back", len(l.created), len(l.jobs), l.deadJobs())
	check(t, p.Process.Kill())
	<-p.output
	_ = p.Wait()
}

func killStack(n int) string { return fmt.Sprintf("/api/stacks/default/shop/s%d/deployments", n) }

// create creates deployments until the server is gone.
func (l *ledger) create(ctx context.Context, p *process, user string) {
	for n := 0; ; n++ {
		path := killStack(n % 8)
		a := p.ask(ctx, "POST", path, user, createBody)
		if a.err != nil {
			return
		}
		if a.code == http.StatusAccepted {
			l.mu.Lock()
			l.created = append(l.created, path+"/"+field(a, "id"))
			l.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// run goes on with the jobs that are known, and claims others, until the server
// is gone or ctx ends.
func (l *ledger) run(ctx context.Context, t *testing.T, p *process, pool string) {
	for ctx.Err() == nil {
		j := l.take()
		if j == nil {
			a := p.ask(ctx, "GET", "/api/deployments/poll", pool, "")
			switch {
			case a.err != nil:
				return
			case a.code != http.StatusOK:
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
				continue
			}
			j = &job{id: field(a, "jobID"), deployment: field(a, "deploymentID"), token: field(a, "jobToken"), taken: true}
			l.mu.Lock()
			l.jobs[j.id] = j
			l.mu.Unlock()
		}
		gone := l.work(ctx, t, p, j)
		l.mu.Lock()
		j.taken = false
		l.mu.Unlock()
		if gone {
			return
		}
	}
}

// take returns a job that nobody works at, nil when there is none.
func (l *ledger) take() *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range l.jobs {
		if !j.taken && !j.finished && !j.dead {
			j.taken = true
			return j
		}
	}
	return nil
}

// work does a job from where it is to its end. It reports whether the server
// went away meanwhile; what had no answer then is repeated the next time.
func (l *ledger) work(ctx context.Context, t *testing.T, p *process, j *job) (gone bool) {
	path := "/api/workflow/jobs/" + j.id
	if !j.defined {
		a := p.ask(ctx, "GET", path, j.token, "")
		switch {
		case a.err != nil:
			return true
		case a.code == http.StatusGone || a.code == http.StatusUnauthorized:
			l.mu.Lock()
			j.dead = true
			l.mu.Unlock()
			return false
		case a.code != http.StatusOK:
			t.Errorf("definition of job %s = %d %s", j.id, a.code, a.text)
			return true
		}
		l.mu.Lock()
		j.defined = true
		if other, twice := l.defined[j.deployment]; twice && other != j.id {
			t.Errorf("deployment %s was defined under the jobs %s and %s", j.deployment, other, j.id)
		}
		l.defined[j.deployment] = j.id
		l.mu.Unlock()
	}
	call := func(method, path, body string, noted func()) bool {
		a := p.ask(ctx, method, path, j.token, body)
		if a.err != nil {
			return false
		}
		if a.code != http.StatusOK {
			t.Errorf("%s %s %s = %d %s", method, path, body, a.code, a.text)
			return false
		}
		l.mu.Lock()
		noted()
		l.mu.Unlock()
		return true
	}
	for step := j.ended; step < killSteps; step++ {
		status := fmt.Sprintf("%s/%d/status", path, step)
		if j.running <= step && !call("PATCH", status, `{"status":"running"}`, func() { j.running = step + 1 }) {
			return true
		}
		for step == 0 && j.lines < 60 {
			if !call("POST", path+"/0/logs", logBody(j.lines, 20), func() { j.lines += 20 }) {
				return true
			}
		}
		if !call("PATCH", status, `{"status":"succeeded"}`, func() { j.ended = step + 1 }) {
			return true
		}
	}
	l.mu.Lock()
	j.finished = true
	l.mu.Unlock()
	return false
}

// verify wants everything that was answered for to be there.
func (l *ledger) verify(t *testing.T, p *process, user string) {
	t.Helper()
	for _, path := range l.created {
		if a := p.ask(t.Context(), "GET", path, user, ""); a.code != http.StatusOK {
			t.Errorf("GET %s = %d %s %v, but its creation was answered", path, a.code, a.text, a.err)
		}
	}
	for _, j := range l.jobs {
		if !j.defined {
			continue
		}
		var d struct {
			Status string
			Jobs   []struct{ Steps []struct{ Status string } }
		}
		path := l.pathOf(t, p, user, j)
		if path == "" {
			continue
		}
		p.ask(t.Context(), "GET", path, user, "").decode(t, &d)
		if len(d.Jobs) != 1 || len(d.Jobs[0].Steps) != killSteps {
			t.Fatalf("deployment %s has the jobs %+v, want one with %d steps", j.deployment, d.Jobs, killSteps)
		}
		for i, s := range d.Jobs[0].Steps {
			if i < j.ended && s.Status != "succeeded" || i < j.running && s.Status == "not-started" {
				t.Errorf("step %d of %s is %s, but %d were reported as running and %d as succeeded", i, j.deployment, s.Status, j.running, j.ended)
			}
		}
		if j.finished != (d.Status == "succeeded") && j.ended == killSteps {
			t.Errorf("deployment %s is %s, but all of its steps were reported", j.deployment, d.Status)
		}
		p.wantLog(t, user, path, 0, j.lines)
	}
}

// pathOf finds a deployment whose creation may not have been answered.
func (l *ledger) pathOf(t *testing.T, p *process, user string, j *job) string {
	t.Helper()
	for n := range 8 {
		path := killStack(n) + "/" + j.deployment
		if slices.Contains(l.created, path) {
			return path
		}
	}
	for n := range 8 {
		if path := killStack(n) + "/" + j.deployment; p.ask(t.Context(), "GET", path, user, "").code == http.StatusOK {
			return path
		}
	}
	t.Errorf("deployment %s is gone", j.deployment)
	return ""
}

// allEnded reports whether nothing waits or runs any more.
func (l *ledger) allEnded(t *testing.T, p *process, user string) bool {
	t.Helper()
	for n := range 8 {
		var list struct{ Deployments []struct{ Status string } }
		a := p.ask(t.Context(), "GET", killStack(n)+"?pageSize=100&sort=status&asc=true", user, "")
		if a.code == http.StatusNotFound { // nothing was ever created there
			continue
		}
		a.decode(t, &list)
		for _, d := range list.Deployments {
			switch d.Status {
			case "succeeded":
			case "failed", "skipped":
				t.Fatalf("a deployment of %s is %s", killStack(n), d.Status)
			default:
				return false
			}
		}
	}
	return true
}

func (l *ledger) deadJobs() (n int) {
	for _, j := range l.jobs {
		if j.dead {
			n++
		}
	}
	return n
}
