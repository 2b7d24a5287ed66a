package runner_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
	"github.com/longshore-run/longshore/internal/ledger"
	"github.com/longshore-run/longshore/internal/runner"
)

// cached is an executor whose job ends well and reports outcomes.
func cached(s *service, outcomes ...api.CacheOutcome) func(context.Context, fake.Job) backend.Exit {
	return func(ctx context.Context, job fake.Job) backend.Exit {
		exit := succeeded(s, time.Hour)(ctx, job)
		exit.Report.Cache = outcomes
		return exit
	}
}

// cache checks all metrics of the dependency cache; want has no comments.
func (g *rig) cache(t *testing.T, want string) {
	t.Helper()
	const prefix = "longshore_agent_job_cache_"
	names := []string{prefix + "restores_total", prefix + "saves_total", prefix + "bytes_total", prefix + "seconds_total"}
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), prefix) {
			text.WriteString("# HELP " + f.GetName() + " " + f.GetHelp() + "\n# TYPE " + f.GetName() + " counter\n")
		}
	}
	for line := range strings.Lines(want) {
		if line = strings.TrimSpace(line); line != "" {
			text.WriteString(prefix + line + "\n")
		}
	}
	if err := testutil.GatherAndCompare(g.metrics, strings.NewReader(text.String()), names...); err != nil {
		t.Error(err)
	}
}

func TestWhatTheCacheDidIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: cached(
			s,
			api.CacheOutcome{Action: api.CacheRestore, Manager: "npm", Result: api.CacheHit, Bytes: 100, Took: api.Duration(1500 * time.Millisecond)},
			api.CacheOutcome{Action: api.CacheRestore, Manager: "npm", Result: api.CacheSkipped},
			api.CacheOutcome{Action: api.CacheRestore, Manager: "plugins", Result: api.CacheMiss},
			api.CacheOutcome{Action: api.CacheSave, Manager: "plugins", Result: api.CacheSaved, Bytes: 7},
		)}, runner.Options{})
		g.r.Handle(t.Context(), work("d"))
		g.cache(t, `
			restores_total{manager="npm",result="hit"} 1
			restores_total{manager="npm",result="skipped"} 1
			restores_total{manager="plugins",result="miss"} 1
			saves_total{manager="plugins",result="saved"} 1
			bytes_total{direction="restore",manager="npm"} 100
			bytes_total{direction="restore",manager="plugins"} 0
			bytes_total{direction="save",manager="plugins"} 7
			seconds_total{direction="restore",manager="npm"} 1.5
			seconds_total{direction="restore",manager="plugins"} 0
			seconds_total{direction="save",manager="plugins"} 0
		`)
	})
}

func TestWordsAndNumbersOfAJobDoNotReachTheMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(definition())
		g := newRig(s, fake.Script{Executor: cached(
			s,
			api.CacheOutcome{Action: api.CacheRestore, Manager: "mine-1", Result: "mine-2", Bytes: 3},
			api.CacheOutcome{Action: api.CacheSave, Manager: "mine-3", Result: api.CacheHit},
			api.CacheOutcome{Action: "mine-4", Manager: "npm", Result: api.CacheHit},
			api.CacheOutcome{Action: api.CacheSave, Manager: "npm", Result: api.CacheSaved, Bytes: 1 << 62},
			api.CacheOutcome{Action: api.CacheSave, Manager: "npm", Result: api.CacheSaved, Bytes: -1},
			api.CacheOutcome{Action: api.CacheSave, Manager: "npm", Result: api.CacheSaved, Took: -1},
		)}, runner.Options{})
		g.r.Handle(t.Context(), work("d"))
		g.cache(t, `
			restores_total{manager="other",result="other"} 1
			saves_total{manager="other",result="other"} 1
			bytes_total{direction="restore",manager="other"} 3
			bytes_total{direction="save",manager="other"} 0
			seconds_total{direction="restore",manager="other"} 0
			seconds_total{direction="save",manager="other"} 0
		`)
	})
}

func TestWhatTheCacheDidIsCountedOnce(t *testing.T) {
	t.Parallel()
	hit := api.CacheOutcome{Action: api.CacheRestore, Manager: "go", Result: api.CacheHit, Bytes: 1}
	const once = `
		restores_total{manager="go",result="hit"} 1
		bytes_total{direction="restore",manager="go"} 1
		seconds_total{direction="restore",manager="go"} 0
	`
	t.Run("for a job that another process began", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			b := killed(t, s, fake.Script{Executor: cached(s, hit)}, runner.Options{}, claimed(true), true)
			b.recovers(t, t.Context())
			b.r.Tidy(t.Context())
			b.cache(t, once)
			b.clean(t)
		})
	})
	t.Run("by the process that noted the end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			e := claimed(true)
			e.End = &ledger.End{Outcome: "succeeded", Step: -1}
			b := killed(t, s, fake.Script{Executor: cached(s, hit)}, runner.Options{}, e, true)
			time.Sleep(2 * time.Hour) // it has ended
			b.recovers(t, t.Context())
			b.cache(t, "")
			b.clean(t)
		})
	})
	t.Run("when the service is told of the end later", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newService(definition())
			b := killed(t, s, fake.Script{Executor: func(context.Context, fake.Job) backend.Exit {
				s.succeed(1)
				s.set(func() { s.away = true })
				return backend.Exit{Report: &api.Report{Step: 2, Status: api.StepSucceeded, Outcome: api.OutcomeSucceeded, Cache: api.CacheOutcomes{hit}}}
			}}, runner.Options{}, nil, false)
			b.r.Handle(t.Context(), work("d"))
			b.r.Tidy(t.Context()) // in vain
			s.set(func() { s.away = false })
			b.r.Tidy(t.Context())
			b.cache(t, once)
			b.clean(t)
		})
	})
}
