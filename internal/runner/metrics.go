package runner

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/longshore-run/longshore/internal/api"
)

// The outcomes of a job as an agent sees them: those of api.Outcome, and these.
const (
	outcomeBadDefinition = string(api.OutcomeBadDefinition)
	outcomeCancelled     = string(api.OutcomeCancelled)
	outcomeTimedOut      = string(api.OutcomeTimedOut)
	outcomeCrashed       = "executor-crashed"
	outcomeOutOfMemory   = "out-of-memory"
	outcomeRemoved       = "removed"
	outcomeStopped       = "stopped" // by somebody else, and in order
	outcomeStartFailed   = "start-failed"
	outcomeNotOurs       = "not-ours" // the service had ended it before it began
	outcomeDuplicate     = "duplicate"
	outcomeInternalError = "internal-error"
	outcomeNeverStarted  = "never-started" // the agent ended between claim and start
	outcomeHostLost      = "host-lost"     // the host was restarted under the job
	outcomeLeft          = "left"          // to the next process of the agent
)

// Metrics are the numbers of a Runner.
type Metrics struct {
	jobs       *prometheus.CounterVec
	jobSeconds prometheus.Histogram
	setup      prometheus.Histogram
	unremoved  prometheus.Counter
	adopted    prometheus.Counter
	swept      prometheus.Counter
	cache      cacheMetrics
}

// cacheMetrics count what the dependency cache did for jobs, whoever keeps it.
// They are not those of a cache that the agent itself keeps.
type cacheMetrics struct{ restores, saves, bytes, seconds *prometheus.CounterVec }

func newCacheMetrics() cacheMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "longshore_agent", Subsystem: "job_cache", Name: name, Help: help}, labels)
	}
	return cacheMetrics{
		restores: counter("restores_total", "Entries of the dependency cache that jobs were to restore, by package manager and result: hit, partial, miss or skipped.", "manager", "result"),
		saves:    counter("saves_total", "Entries that jobs were to save, by package manager and result: saved or skipped.", "manager", "result"),
		bytes:    counter("bytes_total", "Bytes of the entries that were restored or saved, as they are stored.", "manager", "direction"),
		seconds:  counter("seconds_total", "Time that jobs took to restore or save, also for what was a miss.", "manager", "direction"),
	}
}

// other stands for words that are not ours: a job may have written them.
const other = "other"

// count counts the outcomes of one job.
func (m cacheMetrics) count(outcomes api.CacheOutcomes) {
	for _, o := range outcomes {
		if !o.Believable() {
			continue
		}
		manager, result := o.Manager, string(o.Result)
		if !api.KnownManager(manager) {
			manager = other
		}
		if !o.Result.Known(o.Action) {
			result = other
		}
		done := m.restores
		if o.Action == api.CacheSave {
			done = m.saves
		}
		done.WithLabelValues(manager, result).Inc()
		m.bytes.WithLabelValues(manager, string(o.Action)).Add(float64(o.Bytes))
		m.seconds.WithLabelValues(manager, string(o.Action)).Add(o.Took.Std().Seconds())
	}
}

// NewMetrics makes the metrics and registers them with reg, which may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "longshore_agent_jobs_total",
			Help: "Jobs that ended, by outcome.",
		}, []string{"outcome"}),
		jobSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "longshore_agent_job_seconds",
			Help:    "From the claim of a job to its removal.",
			Buckets: []float64{1, 5, 15, 60, 300, 900, 1800, 3600, 7200},
		}),
		setup: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "longshore_agent_setup_seconds",
			Help:    "From the claim of a job to its started executor.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 15, 60, 300},
		}),
		unremoved: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "longshore_agent_removals_failed_total",
			Help: "Jobs of which something was left behind, because it could not be removed.",
		}),
	}
	m.adopted = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "longshore_agent_jobs_adopted_total",
		Help: "Running jobs that were taken over from an earlier process of this agent.",
	})
	m.swept = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "longshore_agent_swept_total",
		Help: "Things that jobs of before had left behind and that were removed.",
	})
	m.cache = newCacheMetrics()
	for _, o := range []string{
		string(api.OutcomeSucceeded), string(api.OutcomeStepFailed), outcomeBadDefinition, outcomeCancelled,
		outcomeTimedOut, string(api.OutcomeServiceLost), outcomeCrashed, outcomeOutOfMemory, outcomeRemoved, outcomeStopped,
		outcomeStartFailed, outcomeNotOurs, outcomeDuplicate, outcomeInternalError,
		outcomeNeverStarted, outcomeHostLost, outcomeLeft,
	} {
		m.jobs.WithLabelValues(o)
	}
	if reg != nil {
		reg.MustRegister(m.jobs, m.jobSeconds, m.setup, m.unremoved, m.adopted, m.swept,
			m.cache.restores, m.cache.saves, m.cache.bytes, m.cache.seconds)
	}
	return m
}
