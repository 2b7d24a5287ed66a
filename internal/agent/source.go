package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/poll"
	"github.com/longshore-run/longshore/internal/telemetry"
)

// source lets the claim loop poll with the client.
type source struct {
	pool   *client.Pool
	health *telemetry.Health
}

// Claim makes one poll and notes in the health what came of it.
func (s source) Claim(ctx context.Context, wait time.Duration) (poll.Answer, error) {
	result, err := s.pool.Poll(ctx, wait)
	switch {
	case err == nil:
		s.health.Active()
		s.health.Set("service", nil)
	case client.Refused(err):
		err = fmt.Errorf("%w: %w: check the token, and that its pool still exists", poll.ErrRefused, err)
		s.health.Set("service", err)
	case ctx.Err() == nil:
		s.health.Set("service", err)
	}
	answer := poll.Answer{Work: result.Work, RetryAfter: result.RetryAfter, WaitApplied: result.WaitApplied}
	var failed *client.Error
	if errors.As(err, &failed) {
		answer.RetryAfter = failed.RetryAfter()
	}
	return answer, err
}

// blocked notes in the health why the loop does not poll. Finding a reason is
// activity, too: the agent is well, its place is not.
func blocked(health *telemetry.Health) func(reason string, why error) {
	return func(reason string, why error) {
		switch reason {
		case poll.ReasonSlots:
			health.Note(reason, why)
		case poll.ReasonDraining:
			health.Set("agent", why)
		default:
			if why != nil {
				health.Active()
			}
			health.Set(reason, why)
		}
	}
}

// requestMetrics counts the requests to the service.
type requestMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	breaker  *prometheus.GaugeVec
}

func newRequestMetrics(reg prometheus.Registerer) *requestMetrics {
	m := &requestMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "longshore_agent_requests_total",
			Help: "Requests to the service by call and outcome, those the open circuit breaker held back included.",
		}, []string{"call", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "longshore_agent_request_seconds",
			Help:    "Time of requests to the service, by call. Held polls and status calls last as long as they are held.",
			Buckets: []float64{.005, .025, .1, .5, 1, 5, 15, 30, 60},
		}, []string{"call"}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "longshore_agent_circuit_breaker_open",
			Help: "1 while requests are held back because those before them failed, by call.",
		}, []string{"call"}),
	}
	reg.MustRegister(m.requests, m.seconds, m.breaker)
	return m
}

// Request implements client.Observer.
func (m *requestMetrics) Request(call, outcome string, took time.Duration) {
	m.requests.WithLabelValues(call, outcome).Inc()
	switch outcome {
	case client.OutcomeNotTried:
		m.breaker.WithLabelValues(call).Set(1)
		return // it took no time
	case client.OutcomeCancelled: // says nothing about the service
	default:
		m.breaker.WithLabelValues(call).Set(0)
	}
	m.seconds.WithLabelValues(call).Observe(took.Seconds())
}
