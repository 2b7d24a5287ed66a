package cachestore

import (
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a lookup found, and why an entry was dropped.
const (
	resultHit     = "hit"
	resultPartial = "partial"
	resultMiss    = "miss"

	reasonAsked  = "asked"
	reasonUnread = "unread"
	reasonLarge  = "too-large"
	reasonRoom   = "no-room"
)

type metrics struct {
	lookups, foundBytes, saves, dropped *prometheus.CounterVec
	movedBytes, movedSeconds            *prometheus.CounterVec
	entries, bytes                      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, namespace string) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "cache", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: "cache", Name: name, Help: help})
	}
	m := &metrics{
		lookups:      counter("lookups_total", "Entries of the dependency cache that jobs asked for, by package manager and result: hit, partial or miss.", "manager", "result"),
		foundBytes:   counter("found_bytes_total", "Bytes of the entries that were found.", "manager"),
		saves:        counter("saves_total", "Entries that jobs asked to save.", "manager"),
		dropped:      counter("dropped_total", "Entries that were dropped: asked for, unread, too-large, or no-room in their project.", "reason"),
		movedBytes:   counter("transferred_bytes_total", "Bytes that went in or out by URLs that this program serves itself. What a cloud serves is not seen.", "manager", "direction"),
		movedSeconds: counter("transferred_seconds_total", "Time that these transfers took.", "manager", "direction"),
		entries:      gauge("entries", "Entries in the bucket, as the last sweep left it."),
		bytes:        gauge("bytes", "Bytes of these entries."),
	}
	for _, reason := range []string{reasonAsked, reasonUnread, reasonLarge, reasonRoom} {
		m.dropped.WithLabelValues(reason) // so that the first one is a change from zero
	}
	if reg != nil {
		reg.MustRegister(m.lookups, m.foundBytes, m.saves, m.dropped, m.movedBytes, m.movedSeconds, m.entries, m.bytes)
	}
	return m
}

// Observe counts a transfer that was served by this program. It is for
// blob.Options.
func (s *Store) Observe(method, name string, bytes int64, took time.Duration) {
	direction := "out"
	if method == http.MethodPut {
		direction = "in"
	}
	manager := managerOf(path.Base(name))
	s.metrics.movedBytes.WithLabelValues(manager, direction).Add(float64(bytes))
	s.metrics.movedSeconds.WithLabelValues(manager, direction).Add(took.Seconds())
}

func keyOf(name string) string { return strings.TrimSuffix(path.Base(name), entryEnd) }

func markerOf(name string) string { return strings.TrimSuffix(name, entryEnd) + markerEnd }
