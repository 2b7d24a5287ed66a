package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration whose wire form is Go's duration text ("1h0m0s").
// An empty string and null read as zero, which means "not set" (PROTOCOL 3).
type Duration time.Duration

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the wire form.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the duration text, or an empty string for zero.
func (d Duration) MarshalJSON() ([]byte, error) {
	if d == 0 {
		return []byte(`""`), nil
	}
	return json.Marshal(d.String())
}

// UnmarshalJSON reads a duration text. A number, a text that is no duration and
// a negative duration are errors.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text *string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("duration %s: want a text such as \"1h30m\"", b)
	}
	if text == nil || *text == "" {
		*d = 0
		return nil
	}
	v, err := time.ParseDuration(*text)
	if err != nil {
		return fmt.Errorf("duration %q: want a text such as \"1h30m\"", *text)
	}
	if v < 0 {
		return fmt.Errorf("duration %q: must not be negative", *text)
	}
	*d = Duration(v)
	return nil
}
