package control

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longshore-run/longshore/internal/api"
)

// metrics are what an operator watches of the control plane.
type metrics struct {
	claims    prometheus.Counter
	claimWait prometheus.Histogram
	dropped   prometheus.Counter
	ended     *prometheus.CounterVec
	silent    prometheus.Counter
	logBytes  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, queueDepth func() float64) *metrics {
	const namespace, subsystem = "longshore", "server"
	m := &metrics{
		claims: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "claims_total",
			Help: "Deployments handed out to agents.",
		}),
		claimWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "claim_wait_seconds",
			Help:    "Time from the creation of a deployment to its claim.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 5, 15, 60, 300, 1800},
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "claims_unconfirmed_total",
			Help: "Claims that were dissolved because nothing was heard of their runner. Their deployments wait again.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "deployments_ended_total",
			Help: "Deployments that ended, by their last status.",
		}, []string{"status"}),
		silent: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "silent_jobs_total",
			Help: "Jobs that were failed because their runner gave no sign of life.",
		}),
		logBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "log_bytes_total",
			Help: "Bytes of log text accepted from runners, without repeats.",
		}),
	}
	for _, status := range []api.Status{api.StatusFailed, api.StatusSucceeded, api.StatusSkipped} {
		m.ended.WithLabelValues(string(status)) // so that the first one is a change from zero
	}
	if reg != nil {
		depth := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "queue_depth",
			Help: "Deployments that wait for an agent or for another deployment of their stack. -1 when the database does not answer.",
		}, queueDepth)
		reg.MustRegister(m.claims, m.claimWait, m.dropped, m.ended, m.silent, m.logBytes, depth)
	}
	return m
}

// queueDepth is read at each scrape.
func (s *Service) queueDepth() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var depth int64
	err := s.store.View(ctx, func(tx Tx) (err error) {
		depth, err = tx.QueueDepth()
		return err
	})
	if err != nil {
		return -1
	}
	return float64(depth)
}
