package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// series is a list of samples of one thing.
type series []time.Duration

// quantile returns the q-th quantile, by the nearest rank.
func (s series) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

func (s series) p50() time.Duration { return s.quantile(0.50) }
func (s series) p95() time.Duration { return s.quantile(0.95) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// verdict says plainly whether a target was met.
func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

// beside writes ours and the floor with their difference and ratio.
func beside(out io.Writer, name string, ours, floor series) {
	fmt.Fprintf(out, "| %s | %d | %s | %s | %s | %s | %s | %s | %.2f |\n", name, len(ours),
		ms(floor.p50()), ms(floor.p95()), ms(ours.p50()), ms(ours.p95()),
		ms(ours.p50()-floor.p50()), ms(ours.p95()-floor.p95()),
		float64(ours.p50())/float64(floor.p50()))
}

const besideHeader = "| target | samples | floor p50 | floor p95 | ours p50 | ours p95 | ours - floor p50 | ours - floor p95 | ratio p50 |\n|---|---|---|---|---|---|---|---|---|\n"
