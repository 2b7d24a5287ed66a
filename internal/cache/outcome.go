package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Result says in a word what came of a Restore or a Save. It has few values: it
// is fit to be the label of a metric.
type Result string

// The results. Saved is a Save's alone; Hit, PartialHit and Miss are a Restore's.
const (
	Hit        Result = "hit"         // the entry with the key was restored
	PartialHit Result = "partial hit" // an older one was restored in its place
	Miss       Result = "miss"        // no entry that can be used
	Saved      Result = "saved"
	Skipped    Result = "skipped" // nothing was tried, or a save did not succeed
	Off        Result = "off"     // there is no cache
)

// Outcome is what came of a Restore or a Save. It can be kept as JSON from the
// one for the other.
type Outcome struct {
	Result  Result        `json:"result"`
	Manager string        `json:"manager"`
	Wanted  string        `json:"wanted,omitempty"` // the recipe's key
	Key     string        `json:"key,omitempty"`    // of the entry that was restored, saved or dropped
	Size    int64         `json:"size,omitempty"`   // of that entry as it is stored, in bytes
	Took    time.Duration `json:"took,omitempty"`
	// Reason says why there was no hit, or why nothing was saved. It is one line
	// for people, without secrets.
	Reason string `json:"reason,omitempty"`
}

// Skip is the outcome of a recipe that the caller decides not to restore or save.
func (r Recipe) Skip(reason string) Outcome { return r.outcome(Skipped, reason) }

func (r Recipe) outcome(result Result, reason string) Outcome {
	return Outcome{Result: result, Manager: r.Manager, Wanted: r.Key, Reason: reason}
}

// String is the one line that a log gets.
func (o Outcome) String() string {
	var b strings.Builder
	b.WriteString(string(o.Result))
	separator := ": "
	add := func(text string) {
		if text != "" {
			b.WriteString(separator + text)
			separator = ", "
		}
	}
	key := o.Key
	if key == "" {
		key = o.Wanted
	}
	add(key)
	if o.Size > 0 {
		add(sized(o.Size))
	}
	if o.Took > 0 {
		add(fmt.Sprintf("%.1f s", o.Took.Seconds()))
	}
	separator = ": "
	add(o.Reason)
	return b.String()
}

// sized writes a number of bytes as people read it.
func sized(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// oneLine writes an error, which may be several, as one line.
func oneLine(err error) string {
	if errors.Is(err, context.Canceled) {
		return "it was cancelled"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
