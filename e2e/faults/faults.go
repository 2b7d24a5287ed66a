// Package faults holds Longshore to its promises while its parts are killed and
// its network misbehaves: the built programs, started as an operator starts
// them, under a load of deployments and a seeded schedule of faults. After the
// run the server's database and API, the machine and the stand-in's own record
// are searched for what must not be there.
//
// Run makes such a run, and its Report says what was done and which invariants
// held; the tests make a short one, "make faults" a long one.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/longshore-run/longshore/e2e/faults/proxy"
	"github.com/longshore-run/longshore/e2e/rig"
)

// Options describe a run.
type Options struct {
	Programs rig.Programs
	Dir      string // for everything it keeps; must exist
	Seed     uint64 // of the schedule of faults, and of what the jobs are like

	Deployments int
	Stacks      int // they are spread over; deployments of one stack run one after the other
	Agents      int
	Concurrency int  // of each agent
	Docker      bool // jobs are containers, and processes otherwise

	Long    float64       // chance of a deployment to take long
	LongFor time.Duration // at least, and twice that at most

	FaultEvery time.Duration // between two kills, more or less
	Kill       map[Victim]int
	Network    map[proxy.Class][]proxy.Rate
	Cancel     float64 // chance of a deployment to be cancelled

	Log io.Writer // gets a line for every kill
}

// Victim is a kind of process that is killed with SIGKILL.
type Victim string

// The victims. The numbers of Options.Kill are their weights in the lottery.
const (
	Agent    Victim = "agent"
	Server   Victim = "server"
	Executor Victim = "executor"
)

// Rough are the rates of a bad network, on every kind of call. A lost answer to a
// poll is a claim that nobody has, which the server has to take back.
func Rough() map[proxy.Class][]proxy.Rate {
	const hold = 700 * time.Millisecond
	rates := []proxy.Rate{
		{Chance: 0.01, Fault: proxy.Fault{Kind: proxy.Cut}},
		{Chance: 0.01, Fault: proxy.Fault{Kind: proxy.Blackhole, For: hold}},
		{Chance: 0.02, Fault: proxy.Fault{Kind: proxy.Delay, For: 100 * time.Millisecond}},
		{Chance: 0.01, Fault: proxy.Fail(500)},
		{Chance: 0.01, Fault: proxy.Fail(502)},
		{Chance: 0.01, Fault: proxy.Throttle("1")},
		{Chance: 0.01, Fault: proxy.Page()},
		{Chance: 0.01, Fault: proxy.Block()},
	}
	// What the server may have done before the caller hears nothing of it.
	done := []proxy.Rate{
		{Chance: 0.01, Fault: proxy.Fault{Kind: proxy.Drop}},
		{Chance: 0.01, Fault: proxy.Fault{Kind: proxy.Twice}},
		{Chance: 0.01, Fault: proxy.Fault{Kind: proxy.Together}},
		{Chance: 0.01, Fault: proxy.Fault{Kind: proxy.HalfRequest}},
		{Chance: 0.01, Fault: proxy.Fault{Kind: proxy.HalfAnswer}},
		{Chance: 0.01, Fault: proxy.Fault{Kind: proxy.Truncate}},
	}
	all := map[proxy.Class][]proxy.Rate{}
	for _, class := range []proxy.Class{proxy.Poll, proxy.Status, proxy.Definition, proxy.Steps, proxy.Logs, proxy.Heartbeat} {
		all[class] = append(append([]proxy.Rate(nil), rates...), done...)
	}
	// More than one line: a line alone is no smaller the next time.
	all[proxy.Logs] = append(all[proxy.Logs], proxy.Rate{Chance: 0.03, Fault: proxy.TooLarge(1 << 10)})
	return all
}

// Report is what a run came to.
type Report struct {
	Options    Options
	Took       time.Duration
	Kills      map[Victim]int
	Network    map[proxy.Class]map[proxy.Kind]int
	Ends       map[string]int // deployments by status and, for failures, why
	Invariants []Invariant
}

// Broken are the findings of all invariants.
func (r *Report) Broken() []string {
	var all []string
	for _, i := range r.Invariants {
		for _, b := range i.Broken {
			all = append(all, i.Name+": "+b)
		}
	}
	return all
}

// torture is one run on its way.
type torture struct {
	Options
	server *process
	agents []*process
	proxy  *proxy.Proxy
	record *recorder // of the stand-ins
	target target

	address string // of the server
	token   string // of the pool

	mu     sync.Mutex
	kills  map[Victim]int
	killed map[string]bool // job ids of killed executors
	log    sync.Mutex
}

// Run makes one run. An error means that the run itself did not work: what it
// found is in the report.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	t := &torture{
		Options: o, target: host{o.Dir, o.Programs.Standin},
		kills: map[Victim]int{}, killed: map[string]bool{},
	}
	if t.Log == nil {
		t.Log = io.Discard
	}
	began := time.Now()
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	load := t.newLoad()
	chaosCtx, calm := context.WithCancelCause(ctx)
	var chaos sync.WaitGroup
	chaos.Go(func() { t.chaos(chaosCtx) })
	load.run(ctx)
	calm(errors.New("the load has ended"))
	chaos.Wait()
	t.proxy.Follow(nil)
	if err := load.err; err != nil {
		return nil, err
	}
	if err := t.alive(ctx); err != nil {
		return nil, err
	}
	report = &Report{Options: o, Kills: maps.Clone(t.kills), Network: t.proxy.Counts(), Ends: map[string]int{}}
	if err := t.check(ctx, load, report); err != nil {
		return nil, err
	}
	report.Took = time.Since(began)
	return report, nil
}

// process is one of ours that is started again after it was killed.
type process struct {
	mu    sync.Mutex // held while it is down
	start func(ctx context.Context) (*rig.Process, error)
	now   *rig.Process
	err   error // why it could not be started again
}

func (t *torture) start(ctx context.Context) error {
	var err error
	if t.record, err = newRecorder(ctx, filepath.Join(t.Dir, "record")); err != nil {
		return err
	}
	if t.address, err = rig.FreeAddress(ctx); err != nil {
		return err
	}
	if t.proxy, err = proxy.New(ctx, t.address, proxy.Seeded(t.Seed, t.Network)); err != nil {
		return err
	}
	t.server = &process{start: t.startServer}
	if t.server.now, err = t.startServer(ctx); err != nil {
		return err
	}
	client, err := t.client()
	if err != nil {
		return err
	}
	pool, err := client.CreatePool(ctx, "default", "faults")
	if err != nil {
		return err
	}
	t.token = pool.TokenValue
	if t.Docker {
		if t.target, err = newEngine(ctx, pool.ID, t.Programs.Standin); err != nil {
			return err
		}
	}
	for i := range t.Agents {
		name := agentName(i)
		a := &process{start: func(ctx context.Context) (*rig.Process, error) { return t.startAgent(ctx, name) }}
		if a.now, err = a.start(ctx); err != nil {
			return err
		}
		t.agents = append(t.agents, a)
	}
	return nil
}

func (t *torture) startServer(ctx context.Context) (*rig.Process, error) {
	s, err := rig.StartServer(ctx, t.Programs, t.Dir, t.address, "--heartbeat-timeout", "90s", "--claim-timeout", "3s")
	if err != nil {
		return nil, err
	}
	return s.Process, nil
}

// agentVariable tells a job the name of its agent.
const agentVariable = "FAULTS_AGENT"

func agentName(i int) string { return fmt.Sprintf("agent-%d", i+1) }

// startAgent starts an agent that asks often, so that a run is short.
func (t *torture) startAgent(ctx context.Context, name string) (*rig.Process, error) {
	s := &rig.Server{Client: *t.through(), Dir: t.Dir}
	return s.StartAgent(ctx, t.Programs, name, t.token, append([]string{
		"--agent-name", name, "--concurrency", fmt.Sprint(t.Concurrency), "--env-forward-allowlist", agentVariable,
		"--poll-wait", "2s", "--polling-interval", "500ms", "--job-status-loop-interval", "1s",
		"--request-timeout", "5s", "--request-retry-wait", "200ms", "--request-retry-max-wait", "1s", "--circuit-breaker-timeout", "1s",
	}, t.target.flags()...), append(t.target.environment(), agentVariable+"="+name))
}

// close ends everything that was started, the server last.
func (t *torture) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, a := range t.agents {
		a.now.Drain()
	}
	for _, a := range t.agents {
		errs = append(errs, a.now.Stop(ctx))
	}
	if t.server != nil && t.server.now != nil {
		errs = append(errs, t.server.now.Stop(ctx))
	}
	if t.proxy != nil {
		t.proxy.Close()
	}
	if t.record != nil {
		errs = append(errs, t.record.close())
	}
	return errors.Join(errs...)
}

// alive reports what could not be started again, or ended by itself.
func (t *torture) alive(ctx context.Context) error {
	var errs []error
	for _, p := range append([]*process{t.server}, t.agents...) {
		p.mu.Lock()
		err := p.err
		select {
		case <-p.now.Done():
			err = errors.Join(err, fmt.Errorf("%s ended by itself with exit code %d:\n%s", p.now.Name, p.now.ExitCode(), p.now.Tail()))
		default:
		}
		p.mu.Unlock()
		errs = append(errs, err)
	}
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// chaos kills until ctx ends. All its choices are the seed's; what is alive to
// be killed is not.
func (t *torture) chaos(ctx context.Context) {
	dice := rand.New(rand.NewPCG(t.Seed, 1))
	lots := []Victim{}
	for _, v := range []Victim{Agent, Server, Executor} {
		for range t.Kill[v] {
			lots = append(lots, v)
		}
	}
	if len(lots) == 0 || t.FaultEvery <= 0 {
		return
	}
	var returning sync.WaitGroup
	defer returning.Wait()
	began := time.Now()
	for {
		wait := time.Duration((0.5 + dice.Float64()) * float64(t.FaultEvery))
		victim, which := lots[dice.IntN(len(lots))], dice.IntN(1<<16)
		down := time.Duration(dice.Float64() * float64(time.Second))
		if !pause(ctx, wait) {
			return
		}
		name := ""
		switch victim {
		case Executor:
			name = t.killExecutor(ctx, which)
		case Agent:
			name = t.killFor(ctx, t.agents[which%len(t.agents)], down, &returning)
		case Server:
			name = t.killFor(ctx, t.server, down, &returning)
		}
		if name == "" {
			continue // it is down as it is, or there is none
		}
		t.mu.Lock()
		t.kills[victim]++
		t.mu.Unlock()
		t.say("%8.3f kill -9 %s, down for %s", time.Since(began).Seconds(), name, down.Round(time.Millisecond))
	}
}

func (t *torture) say(format string, args ...any) {
	t.log.Lock()
	defer t.log.Unlock()
	fmt.Fprintf(t.Log, format+"\n", args...)
}

// killFor kills a process of ours and starts it again after a while.
func (t *torture) killFor(ctx context.Context, p *process, down time.Duration, returning *sync.WaitGroup) (name string) {
	if !p.mu.TryLock() {
		return ""
	}
	if p.err != nil {
		p.mu.Unlock()
		return ""
	}
	p.now.Kill()
	name = p.now.Name
	returning.Go(func() {
		defer p.mu.Unlock()
		pause(ctx, down)
		again, err := p.start(context.WithoutCancel(ctx))
		if err != nil {
			p.err = fmt.Errorf("start %s again: %w", name, err)
			return
		}
		p.now = again
	})
	return name
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
