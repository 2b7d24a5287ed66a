package config

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Secret is a text that no log, error message or JSON ever shows.
type Secret string

const redacted = "[redacted]"

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// String returns a placeholder, or nothing when there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is String: %#v must not leak either.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalJSON writes what String returns.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText writes what String returns.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Bytes is an amount of memory or disk.
type Bytes int64

var units = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "kb": 1000, "ki": 1 << 10, "kib": 1 << 10,
	"m": 1 << 20, "mb": 1e6, "mi": 1 << 20, "mib": 1 << 20,
	"g": 1 << 30, "gb": 1e9, "gi": 1 << 30, "gib": 1 << 30,
}

func parseBytes(text string) (Bytes, bool) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit, known := units[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !known || n < 0 || math.IsNaN(n) || n*unit > math.MaxInt64/2 {
		return 0, false
	}
	return Bytes(n * unit), true
}

// assign reads raw, as a flag, the environment or a YAML file gives it, into
// the field that target points to. Its errors never quote a secret.
func assign(target, raw any) error {
	if list, ok := target.(*[]string); ok {
		return assignList(list, raw)
	}
	switch raw.(type) {
	case map[string]any, []any, nil:
		return fmt.Errorf("want one %s", kind(target))
	}
	text := strings.TrimSpace(fmt.Sprint(raw))
	ok := true
	var err error
	switch t := target.(type) {
	case *string:
		*t = text
	case *Secret:
		*t = Secret(text)
	case *bool:
		*t, err = strconv.ParseBool(strings.ToLower(text))
		ok = err == nil
	case *int:
		*t, err = strconv.Atoi(text)
		ok = err == nil
	case *float64:
		*t, err = strconv.ParseFloat(text, 64)
		ok = err == nil && *t >= 0 && !math.IsInf(*t, 0) && !math.IsNaN(*t)
	case *Bytes:
		*t, ok = parseBytes(text)
	case *time.Duration:
		if text == "" { // the closed agent's own default for health_threshold
			return nil
		}
		*t, err = time.ParseDuration(text)
		ok = err == nil && *t >= 0
	default:
		panic(fmt.Sprintf("config: option of type %T", target))
	}
	if !ok {
		return fmt.Errorf("%q is no %s: want such as %s", text, kind(target), example(target))
	}
	return nil
}

func assignList(list *[]string, raw any) error {
	*list = nil
	if items, ok := raw.([]any); ok {
		for _, item := range items {
			*list = append(*list, fmt.Sprint(item))
		}
		return nil
	}
	*list = strings.FieldsFunc(fmt.Sprint(raw), func(r rune) bool {
		return r == ',' || r == ' ' || r == '\t' || r == '\n'
	})
	return nil
}

// kind names the type of an option for people.
func kind(target any) string {
	switch target.(type) {
	case *string, *Secret:
		return "text"
	case *bool:
		return "true or false"
	case *int:
		return "whole number"
	case *float64:
		return "number"
	case *Bytes:
		return "size"
	case *time.Duration:
		return "duration"
	case *[]string:
		return "list"
	}
	panic(fmt.Sprintf("config: option of type %T", target))
}

func example(target any) string {
	switch target.(type) {
	case *bool:
		return "true"
	case *int:
		return "3"
	case *float64:
		return "1.5"
	case *Bytes:
		return "512MiB"
	case *time.Duration:
		return "30s, 5m or 1h30m"
	}
	return "a text"
}
