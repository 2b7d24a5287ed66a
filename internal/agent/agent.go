// Package agent puts an agent together: the client of the service, the claim
// loop, the runner and the backend. It holds wiring and no rules, so that
// cmd/agent and the development mode of the server run the very same agent.
// The main type is Agent.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/dirlock"
	"github.com/longshore-run/longshore/internal/ledger"
	"github.com/longshore-run/longshore/internal/poll"
	"github.com/longshore-run/longshore/internal/preflight"
	"github.com/longshore-run/longshore/internal/runner"
	"github.com/longshore-run/longshore/internal/telemetry"
	"github.com/longshore-run/longshore/internal/undelivered"
)

// ErrRefused is wrapped by the error of Run when the service refuses the pool
// token. The jobs in hand have finished by then.
var ErrRefused = poll.ErrRefused

// Agent claims deployments from one service and runs them on one backend.
type Agent struct {
	loop         *poll.Loop
	jobs         *runner.Runner
	place        backend.Backend
	memory       *ledger.Ledger
	cached       *cache        // nil when the service, or nobody, keeps one
	lock         *dirlock.Lock // of the working directory
	stop         *stop
	keeper       *keeper
	drainTimeout time.Duration
	health       *telemetry.Health
	log          *zap.Logger
}

// New puts an agent together. It makes the working directory, locks it until Run
// returns, and contacts nobody; its errors are mistakes of the configuration, all
// of them at once.
func New(config Config, deps Deps) (_ *Agent, err error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if err := makeDirectory(config.WorkingDirectory); err != nil {
		return nil, err
	}
	lock, err := dirlock.Take(config.WorkingDirectory, "working directory", "longshore-agent")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	memory, err := ledger.Open(filepath.Join(config.WorkingDirectory, "state"))
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	config = config.withDefaults(hostname)
	deps = deps.withDefaults()
	options := client.Options{
		BaseURL:        config.ServiceURL,
		UserAgent:      fmt.Sprintf("longshore-agent/%s (%s/%s; %s; %d)", deps.Version, runtime.GOOS, runtime.GOARCH, hostname, os.Getpid()),
		Holder:         memory.Owner(),
		RequestTimeout: config.RequestTimeout,
		Retries:        config.RequestRetries,
		RetryWait:      config.RequestRetryWait,
		RetryMaxWait:   config.RequestRetryMaxWait,
		Breaker:        client.Breaker{Failures: config.BreakerFailures * (1 + config.RequestRetries), Open: config.BreakerTimeout},
		Observer:       newRequestMetrics(deps.Registerer),
		Log:            deps.Log,
	}
	clock := preflight.NewClock(config.ServiceURL, config.MaxSkew, client.NewTransport())
	options.HTTP = &http.Client{Transport: clock}
	api, err := client.New(options)
	if err != nil {
		return nil, err
	}
	// A claim is never handed out again, so the calls of a job are not given up
	// after a few tries; the runner bounds their time.
	options.HTTP, options.Retries, options.RetryWait, options.RetryMaxWait = nil, -1, 500*time.Millisecond, 15*time.Second
	persistent, err := client.New(options)
	if err != nil {
		return nil, err
	}
	pool := api.Pool(config.Token)
	keep, err := newKeeper(&config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			keep.Close()
		}
	}()
	place := config.Backend
	if place == nil {
		if place, err = newBackend(&config, deps, pool, memory.Owner(), keep.entries()); err != nil {
			return nil, err
		}
	}
	kept := undelivered.In(config.WorkingDirectory)
	var jobs *runner.Runner
	cached, err := newCache(config, deps, place, func(jobID string) bool { return jobs.InHand(jobID) })
	if err != nil {
		return nil, err
	}
	jobs = runner.New(runner.Options{
		Backend:        place,
		Pool:           pool,
		NewJob:         func(id, token string) runner.Job { return persistent.Job(id, token) },
		AgentName:      config.Name,
		PoolName:       config.Pool,
		ServiceURL:     config.JobServiceURL,
		DirectURL:      config.ServiceURL,
		Undelivered:    &kept,
		SpoolDirectory: filepath.Join(config.WorkingDirectory, "spool"),
		Ledger:         memory,
		Cache:          cached.forJobs(config.Cache),
		Keeper:         keep.forRunner(),
		DefaultImage:   config.DefaultImage,
		OverrideImage:  config.OverrideImage,
		Env:            config.Env,
		Limits:         config.Limits,
		KeepFailed:     config.KeepFailed,
		StatusInterval: config.JobStatusInterval,
		Heartbeat:      config.HeartbeatInterval,
		JobTimeout:     config.JobTimeout,
		StepTimeout:    config.StepTimeout,
		IdleTimeout:    config.JobIdleTimeout,
		ChangeGrace:    config.ChangeGrace,
		QuickGrace:     config.QuickGrace,
		Active:         deps.Health.Active,
		Log:            deps.Log,
		Metrics:        runner.NewMetrics(deps.Registerer),
	})
	loop := poll.New(poll.Options{
		Source:  source{pool, deps.Health},
		Handler: jobs,
		Slots:   config.Concurrency,
		Checks: []poll.Check{
			{Reason: "disk", Check: preflight.Disk{Directory: config.WorkingDirectory, MinFree: config.MinFree}.Check},
			{Reason: "clock", Check: clock.Check},
			{Reason: "target", Check: place.Check},
		},
		Blocked:          blocked(deps.Health),
		Wait:             config.PollWait,
		Interval:         config.PollingInterval,
		IgnoreRetryAfter: config.PollingIntervalOverride,
		ErrorMaxWait:     config.RequestRetryMaxWait,
		MaxJobs:          config.MaxJobs,
		IdleTimeout:      config.IdleTimeout,
		Log:              deps.Log,
		Metrics:          poll.NewMetrics(deps.Registerer),
	})
	return &Agent{
		loop: loop, jobs: jobs, place: place, memory: memory, cached: cached, lock: lock, stop: newStop(), keeper: keep, drainTimeout: config.DrainTimeout,
		health: deps.Health, log: deps.Log,
	}, nil
}

// Run takes up what an earlier process of this agent left, then claims
// deployments and runs them until drain is closed (claim no more, finish what is
// in hand, for Config.DrainTimeout at most) or ctx is cancelled (end what is in
// hand by the ladder of signals, and still report it). It returns nil after both,
// and an error that wraps ErrRefused when the pool token is refused. Call it
// once.
//
// A drain does not cut the poll that the service is holding at that moment,
// because it may be a claim already: it takes up to Config.PollWait until an
// idle agent has drained.
func (a *Agent) Run(ctx context.Context, drain <-chan struct{}) error {
	defer a.lock.Close()
	defer a.keeper.Close()
	if place, ok := a.place.(io.Closer); ok {
		defer place.Close()
	}
	defer a.closeCache()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer close(ended)
	watcher.Go(func() { a.watch(ctx, drain, ended, cancel) })
	inHand, ok := a.recover(ctx, drain)
	if !ok {
		return nil
	}
	tidyCtx, stopTidying := context.WithCancel(context.WithoutCancel(ctx))
	var tidying sync.WaitGroup
	defer tidying.Wait()
	defer stopTidying()
	tidying.Go(func() { a.tidy(tidyCtx) })
	tidying.Go(func() { a.cached.run(tidyCtx) }) // for as long as there are jobs
	return a.loop.Run(ctx, drain, inHand...)
}

func (a *Agent) closeCache() {
	if err := a.cached.close(); err != nil {
		a.log.Warn("close the bucket of the dependency cache", zap.Error(err))
	}
}

// recover finds the jobs of before. It goes on trying while the target does not
// answer, because nothing may be claimed before it is known what is in hand.
// When the agent is stopped first, ok is false.
func (a *Agent) recover(ctx context.Context, drain <-chan struct{}) (inHand []func(context.Context), ok bool) {
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0),
	)
	failing := false
	a.health.Set("recovery", errors.New("looking for the jobs of before"))
	for {
		inHand, err := a.jobs.Recover(ctx)
		if err == nil {
			a.health.Set("recovery", nil)
			return inHand, true
		}
		a.health.Set("recovery", err)
		a.health.Active() // the agent is well, the place is not
		if !failing && ctx.Err() == nil {
			a.log.Warn("not polling: it is not known which jobs still run here; will go on asking", zap.Error(err))
		}
		failing = true
		timer := time.NewTimer(retry.NextBackOff())
		select {
		case <-timer.C:
			continue
		case <-drain:
		case <-ctx.Done():
		}
		timer.Stop()
		a.log.Warn("jobs of before, if there are any, are left to the next agent")
		return nil, false
	}
}

// tidyInterval is the time between two looks for what was left behind.
const tidyInterval = 5 * time.Minute

// tidy removes what is left behind, at the start and from time to time, until
// ctx ends.
func (a *Agent) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyInterval)
	defer tick.Stop()
	for {
		a.jobs.Tidy(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (d Deps) withDefaults() Deps {
	if d.Log == nil {
		d.Log = zap.NewNop()
	}
	if d.Health == nil {
		d.Health = telemetry.NewHealth(0)
	}
	if d.Registerer == nil {
		d.Registerer = prometheus.NewRegistry()
	}
	if d.Version == "" {
		d.Version = "unknown"
	}
	return d
}

// makeDirectory makes the working directory, for this user alone.
func makeDirectory(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(dir, ".probe-*"); err == nil {
			probe.Close()
			return os.Remove(probe.Name())
		}
	}
	return fmt.Errorf("working directory: %w: choose one that this user may write to with --working-directory", err)
}
