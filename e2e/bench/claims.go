package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/e2e/rig"
)

// claims is B9: a thousand agents at one server. They are goroutines, but poll
// with the agent's own loop and client over connections of their own.
func claims(ctx context.Context, b *bench, out io.Writer) error {
	agents := b.samples(1000, 50)
	fmt.Fprintf(out, "%d simulated agents (the agent's own claim loop and client, a connection each) hold polls at one server on SQLite; agents, load and\n"+
		"server share this machine. Floor: a bare net/http server with a queue under a mutex, in the process of the agents, that keeps nothing.\n\n"+
		"| what | floor | ours | target | |\n|---|---|---|---|---|\n", agents)
	if err := b.claimBurst(ctx, out, agents); err != nil {
		return fmt.Errorf("burst: %w", err)
	}
	return b.claimSteadily(ctx, out, agents)
}

// claimBurst lets the agents loose on a full queue.
func (b *bench) claimBurst(ctx context.Context, out io.Writer, agents int) error {
	queued := b.samples(3000, 200)
	rate := func(u *upstream) (float64, error) {
		if err := u.enqueue(ctx, queued); err != nil {
			return 0, err
		}
		all := make(chan struct{})
		var claimed, began atomic.Int64
		f, err := startFleet(ctx, u, agents, func(context.Context, *agent, job) {
			began.CompareAndSwap(0, time.Now().UnixNano())
			if claimed.Add(1) == int64(queued) {
				close(all)
			}
		})
		if err != nil {
			return 0, err
		}
		select {
		case <-all:
		case <-time.After(2 * time.Minute):
			err = fmt.Errorf("%d of %d claimed in two minutes", claimed.Load(), queued)
		}
		took := time.Since(time.Unix(0, began.Load()))
		return float64(queued) / took.Seconds(), errors.Join(err, f.stop())
	}
	bare := newBareServer()
	defer bare.close()
	floor, err := rate(bare.upstream())
	if err != nil {
		return err
	}
	u, err := b.upstream(ctx, "b9-burst", "--claim-timeout", "10m")
	if err != nil {
		return err
	}
	ours, err := rate(u)
	if err := errors.Join(err, u.server.Stop(ctx)); err != nil {
		return err
	}
	fmt.Fprintf(out, "| claims a second, from a queue of %d | %.0f | %.0f | 500 | %s |\n", queued, floor, ours, verdict(ours >= 500))
	return nil
}

// claimSteadily creates a hundred deployments a second, and kills the server
// under it.
func (b *bench) claimSteadily(ctx context.Context, out io.Writer, agents int) (err error) {
	span := time.Duration(b.samples(30, 3)) * time.Second
	bare := newBareServer()
	defer bare.close()
	floor := newTally()
	f, err := startFleet(ctx, bare.upstream(), agents, floor.run)
	if err != nil {
		return err
	}
	floor.load(ctx, bare.upstream(), span)
	if err := f.stop(); err != nil {
		return err
	}

	u, err := b.upstream(ctx, "b9")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.server.Stop(context.WithoutCancel(ctx))) }()
	ours := newTally()
	f, err = startFleet(ctx, u, agents, ours.run)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	ours.load(ctx, u, span)
	row := func(what, floor, ours, target, met string) {
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", what, floor, ours, target, met)
	}
	floorTimes, times := floor.latencies(), ours.latencies()
	row(fmt.Sprintf("creation sent to work in the agent's hands, 100 a second, p50 of %d", len(times)), ms(floorTimes.p50()), ms(times.p50()), "", "")
	row("the same, p99", ms(floorTimes.quantile(0.99)), ms(times.quantile(0.99)), "50 ms", verdict(times.quantile(0.99) <= 50*time.Millisecond))

	// Two outages of three seconds with the load going on: the server is killed,
	// and it is stopped as an operator does.
	for _, how := range []struct {
		what string
		end  func()
	}{
		{"was killed", func() { u.server.Kill() }},
		{"was stopped", func() { _ = u.server.Stop(ctx) }},
	} {
		steady, first, err := b.outage(ctx, u, f, ours, how.end)
		if err != nil {
			return err
		}
		row("requests of the agents in the first 10 s after the server "+how.what+" for 3 s; floor: in 10 s before",
			fmt.Sprint(steady), fmt.Sprint(first), "3 x", verdict(first <= 3*steady))
	}
	quiet, woken, err := b.idleOutage(ctx, u, f)
	if err != nil {
		return err
	}
	row("the same after a stop, with nothing to do before or after", fmt.Sprint(quiet), fmt.Sprint(woken), "", "")
	row("deployments handed out twice", fmt.Sprint(floor.twice()), fmt.Sprint(ours.twice()), "0", verdict(ours.twice() == 0))
	return nil
}

// outage ends the server under load and starts it again. It returns how many
// requests the agents made in the ten seconds before, and in the ten after the
// new server was ready.
func (b *bench) outage(ctx context.Context, u *upstream, f *fleet, t *tally, end func()) (before, after int64, err error) {
	const window = 10 * time.Second
	loadCtx, stop := context.WithCancel(ctx)
	var loading sync.WaitGroup
	loading.Go(func() { t.load(loadCtx, u, time.Hour) })
	defer loading.Wait()
	defer stop()
	pause(ctx, 2*time.Second)
	from := f.sent.Load()
	pause(ctx, window)
	before = f.sent.Load() - from
	end()
	pause(ctx, 3*time.Second)
	if err := u.restart(ctx, b); err != nil {
		return 0, 0, err
	}
	from = f.sent.Load()
	pause(ctx, window)
	return before, f.sent.Load() - from, nil
}

// idleOutage is an outage while nothing is to be done: all there is are polls,
// of which an agent makes one a minute.
func (b *bench) idleOutage(ctx context.Context, u *upstream, f *fleet) (before, after int64, err error) {
	const window = 10 * time.Second
	pause(ctx, 30*time.Second) // until all agents hold a poll again
	from := f.sent.Load()
	pause(ctx, window)
	before = f.sent.Load() - from
	if err := u.server.Stop(ctx); err != nil {
		return 0, 0, err
	}
	if err := u.restart(ctx, b); err != nil {
		return 0, 0, err
	}
	from = f.sent.Load()
	pause(ctx, window)
	return before, f.sent.Load() - from, nil
}

// upstream is a server that agents and load talk to.
type upstream struct {
	url, pool string
	rest      restclient.Client
	server    *rig.Server // nil for the floor
	dir       string
	args      []string
}

func (b *bench) upstream(ctx context.Context, name string, args ...string) (*upstream, error) {
	dir := filepath.Join(b.dir, name)
	server, err := rig.StartServer(ctx, b.programs, dir, "", args...)
	if err != nil {
		return nil, err
	}
	pool, err := server.CreatePool(ctx, "default", "bench")
	if err != nil {
		return nil, errors.Join(err, server.Stop(ctx))
	}
	return &upstream{url: server.URL, pool: pool.TokenValue, rest: server.Client, server: server, dir: dir, args: args}, nil
}

// restart starts the server again at the same address.
func (u *upstream) restart(ctx context.Context, b *bench) error {
	server, err := rig.StartServer(ctx, b.programs, u.dir, u.url[len("http://"):], u.args...)
	if err == nil {
		u.server = server
	}
	return err
}

// create creates the nth deployment.
func (u *upstream) create(ctx context.Context, n int) (id string, err error) {
	made, err := u.rest.Create(ctx, restclient.Stack(fmt.Sprintf("default/bench/s%d", n%5000)), map[string]any{"operation": "preview"})
	return made.ID, err
}

// enqueue fills the queue, 16 at a time.
func (u *upstream) enqueue(ctx context.Context, n int) error {
	var (
		next   atomic.Int64
		wg     sync.WaitGroup
		failed = make(chan error, 16)
	)
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if _, err := u.create(ctx, i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}

// tally follows deployments from their creation to the agent that got them.
type tally struct {
	mu      sync.Mutex
	created map[string]time.Time
	claimed map[string]time.Time
	again   map[string]int
	next    atomic.Int64
}

func newTally() *tally {
	return &tally{created: map[string]time.Time{}, claimed: map[string]time.Time{}, again: map[string]int{}}
}

// run does a claimed job as shortly as can be: it takes the definition, which
// makes the job its own, and fails the first step.
func (t *tally) run(ctx context.Context, a *agent, j job) {
	at := time.Now()
	if err := a.begin(ctx, j); err != nil {
		return // another gets it
	}
	t.mu.Lock()
	if _, twice := t.claimed[j.deployment]; twice {
		t.again[j.deployment]++
	} else {
		t.claimed[j.deployment] = at
	}
	t.mu.Unlock()
	a.finish(ctx, j)
}

// load creates a hundred deployments a second.
func (t *tally) load(ctx context.Context, u *upstream, span time.Duration) {
	const rate = 100
	ticker := time.NewTicker(time.Second / rate)
	defer ticker.Stop()
	deadline := time.After(span)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-deadline:
			return
		case <-ticker.C:
		}
		n := int(t.next.Add(1))
		wg.Go(func() {
			began := time.Now()
			id, err := u.create(ctx, n)
			if err != nil {
				return // the server is away
			}
			t.mu.Lock()
			t.created[id] = began
			t.mu.Unlock()
		})
	}
}

// latencies returns how long each deployment took from the sending of its
// creation to an agent.
func (t *tally) latencies() (all series) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, at := range t.claimed {
		if began, ok := t.created[id]; ok {
			all = append(all, at.Sub(began))
		}
	}
	return all
}

func (t *tally) twice() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.again)
}
