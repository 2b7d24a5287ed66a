package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counts of the server. Their labels have few values: a route
// is the pattern, never a path.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	held     prometheus.Gauge
	panics   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "longshore_server_http_requests_total",
			Help: "Requests answered, by route and class of status.",
		}, []string{"route", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "longshore_server_http_request_duration_seconds",
			Help:    "Time from the head of a request to the end of its answer. Calls that are held take as long as they are held.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 65},
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "longshore_server_http_requests_in_flight",
			Help: "Requests being answered now, those that are held among them.",
		}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "longshore_server_http_requests_held",
			Help: "Polls and status calls that wait for something to happen.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "longshore_server_http_panics_total",
			Help: "Requests whose handler panicked. Any is a bug.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.duration, m.inFlight, m.held, m.panics)
	}
	return m
}

func (m *metrics) observe(route string, code int, took time.Duration) {
	class := "none" // the connection was cut before there was an answer
	if code > 0 {
		class = strconv.Itoa(code/100) + "xx"
	}
	m.requests.WithLabelValues(route, class).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}
