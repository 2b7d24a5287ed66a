// Package logstream carries the output of a job's steps to the service: bytes
// in, masked, cut into lines, numbered, batched, kept while the service is away,
// and delivered in order, each line once. It knows nothing of HTTP (Sink does
// the sending) and nothing of jobs but that their steps have numbers.
//
// The main types are Streams, one for a job, and Writer, one for a step.
//
// The way of a line: Writer masks and cuts, and adds it to the open batch of its
// step. One goroutine, the sender, takes what is oldest: batches in memory, then
// those in the spool, then open batches that have waited long enough or are large
// enough. It sends one batch at a time and repeats it, with the same offset,
// until the service has it, while the next ones fill.
//
// When memory is full, what happens depends on the service. If it is healthy and
// takes at least what memory holds in half a second, writers wait for it, and the
// job with them, for some milliseconds at a time. If it is away or slower than
// that, batches go to the spool, a set of files in Options.SpoolDir, and the job
// runs on. Once the spool has reached its cap, or its disk fails, writers wait,
// and the job with them, until there is room again: nothing is dropped.
//
// The service counts the lines of each step, and says so when a batch does not
// fit (409). Lines it has are then not sent again; where it lacks lines that are
// no longer held, one line that says so takes their place.
package logstream
