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
// # When memory is full
//
// What happens depends on the service. If it is healthy and takes at least what
// memory holds in half a second, writers wait for it, and the job with them, for
// some milliseconds at a time. If it is away or slower than that, batches go to
// the spool, a set of files in Options.SpoolDir, and the job runs on.
//
// Once the spool has reached its cap, writers wait only for a service that
// answers within half a second. Else the middle goes: the first half of the cap
// stays, and of the rest the newest. Where there is no spool, or its disk fails,
// writers wait for Options.Patience, and then the same is done with memory; a
// disk that failed is tried again from time to time. In the log, one line stands
// for what went: how many lines, and how many bytes.
//
// # Numbers
//
// The service counts the lines of each step, and says so when a batch does not
// fit (409). Lines it has are then not sent again; where it lacks lines that are
// no longer held, one line that says so takes their place.
//
// # What is left on the disk
//
// When Close has to give up, it leaves everything that was not delivered in the
// spool, and so does, but for what was in memory, a process that is killed.
// Resume goes on with it, in another process. The directory is the spool's own:
//
//	50000000.spool, 50000001.spool, ...  records, in the order of these names
//	acked                                how far the service has them
//
// All numbers are little endian. A record is a header of 32 bytes and the lines:
//
//	 0  "LSL2"
//	 4  length of the lines in bytes
//	 8  CRC-32C of all that follows, lines included
//	12  index of the step
//	16  how many lines
//	20  bytes of their text
//	24  number of the line after the last, 8 bytes; a step's first line is number 0
//	32  the lines, as the JSON array of a log batch without its last bracket
//
// acked has 48 bytes for each step, the first for step 0. Those of steps without
// records are zero:
//
//	 0  "LSA1"
//	 4  CRC-32C of all that follows
//	 8  index of the step
//	12  flags: 1 the shift is a guess, 2 nothing was lost with memory
//	16  number of the line up to which, exclusive, the service has them, 8 bytes
//	24  what is added to a number to make it an offset of the service, 8 bytes
//	32  bytes that were dropped from the middle, 8 bytes
//	40  number of the line after the last that was written, 8 bytes
//
// A record whose checksum is wrong is skipped and the next good one looked for,
// so a half-written or damaged one takes nothing with it; the numbers tell how
// many lines it had. Records that come twice count once.
package logstream
