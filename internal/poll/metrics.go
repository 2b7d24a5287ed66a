package poll

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the numbers of a Loop.
type Metrics struct {
	slots, busy prometheus.Gauge
	lastSuccess prometheus.Gauge
	panics      prometheus.Counter
	polls       *prometheus.CounterVec
	blocked     *prometheus.GaugeVec
}

// NewMetrics makes the metrics and registers them with reg, which may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		slots: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "longshore_agent_slots",
			Help: "Jobs this agent may run at the same time.",
		}),
		busy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "longshore_agent_slots_busy",
			Help: "Jobs this agent has in hand.",
		}),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "longshore_agent_poll_last_success_timestamp_seconds",
			Help: "When the service last answered a poll, in unix seconds.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "longshore_agent_slot_panics_total",
			Help: "Jobs that crashed their slot. Every one of them is a bug.",
		}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "longshore_agent_polls_total",
			Help: "Polls by outcome: work, none, error, refused; unhealthy counts those not made because a check did not hold.",
		}, []string{"outcome"}),
		blocked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "longshore_agent_poll_blocked",
			Help: "1 for each reason for which the agent does not poll at the moment.",
		}, []string{"reason"}),
	}
	for _, outcome := range []string{"work", "none", "error", "refused", "unhealthy"} {
		m.polls.WithLabelValues(outcome)
	}
	for _, reason := range []string{ReasonSlots, ReasonDraining} {
		m.blocked.WithLabelValues(reason)
	}
	if reg != nil {
		reg.MustRegister(m.slots, m.busy, m.lastSuccess, m.panics, m.polls, m.blocked)
	}
	return m
}

func (m *Metrics) answered(outcome string) {
	m.polls.WithLabelValues(outcome).Inc()
	m.lastSuccess.SetToCurrentTime()
}
