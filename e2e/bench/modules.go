package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// moduleOf names the module, roughly, that a symbol belongs to.
func moduleOf(symbol string) string {
	symbol = strings.TrimPrefix(strings.TrimPrefix(symbol, "type:"), ".eq.")
	parts := strings.Split(strings.TrimLeft(symbol, "*[]("), "/")
	if !strings.Contains(parts[0], ".") || len(parts) < 2 {
		return "standard library and runtime"
	}
	n := 2
	if parts[0] == "github.com" || parts[0] == "golang.org" {
		n = 3
	}
	last := parts[min(n, len(parts))-1]
	last, _, _ = strings.Cut(last, ".")
	return strings.Join(append(slices.Clone(parts[:min(n, len(parts))-1]), last), "/")
}

func largest(sizes map[string]int64, n int) string {
	names := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int { return cmp.Compare(sizes[b], sizes[a]) })
	var text []string
	for _, name := range names[:min(n, len(names))] {
		text = append(text, fmt.Sprintf("%s %.1f MB", name, float64(sizes[name])/1e6))
	}
	return strings.Join(text, ", ")
}
