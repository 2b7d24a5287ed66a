package api

import "time"

// MaxLineBytes is the longest line a log may hold, its newline included. A
// longer one is split; nothing is dropped.
const MaxLineBytes = 64 << 10

// LogLine is one line of a step's log (PROTOCOL 4).
type LogLine struct {
	Time time.Time `json:"t"` // when it was read, RFC 3339 with nanoseconds on the wire
	Text string    `json:"l"` // with its trailing newline, carriage returns kept
}

// LogBatch is a run of consecutive lines of one step. Offset is the index, in
// that step's log, of the first of them: it makes a resend harmless.
type LogBatch struct {
	Offset int64     `json:"offset"`
	Lines  []LogLine `json:"lines"`
}
