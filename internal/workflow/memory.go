package workflow

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// tightPercent of the limit is where a step is interrupted: what is left is
	// for what it does to save its state.
	tightPercent = 85
	// memoryInterval is the time between two looks.
	memoryInterval = 250 * time.Millisecond
)

// memory reads what the kernel counts for the control group of this process.
// Where there is no such group, it is of no size and without a limit.
type memory struct {
	current, peak, limit, stat, events string // paths of files
	// cache names the rows of stat that the kernel takes back before it kills
	// anybody: they do not count as used.
	cache []string

	highest int64 // of current as it was seen, for kernels that keep no peak
}

// findMemory looks for the memory controller of the group that the file proc
// names (/proc/self/cgroup), below root (/sys/fs/cgroup). It knows control
// groups v2 and v1. A container sees its own group as the root.
func findMemory(root, proc string) *memory {
	v1, v2 := "", ""
	if b, err := os.ReadFile(proc); err == nil {
		for line := range strings.Lines(string(b)) {
			parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
			switch {
			case len(parts) < 3:
			case parts[0] == "0":
				v2 = parts[2]
			case strings.Contains(","+parts[1]+",", ",memory,"):
				v1 = parts[2]
			}
		}
	}
	for _, dir := range []string{filepath.Join(root, v2), root} {
		if exists(filepath.Join(dir, "memory.events")) {
			file := func(name string) string { return filepath.Join(dir, "memory."+name) }
			return &memory{
				current: file("current"), peak: file("peak"), limit: file("max"), stat: file("stat"), events: file("events"),
				cache: []string{"inactive_file", "active_file", "slab_reclaimable"},
			}
		}
	}
	for _, dir := range []string{filepath.Join(root, "memory", v1), filepath.Join(root, "memory")} {
		if exists(filepath.Join(dir, "memory.oom_control")) {
			file := func(name string) string { return filepath.Join(dir, "memory."+name) }
			return &memory{
				current: file("usage_in_bytes"), peak: file("max_usage_in_bytes"), limit: file("limit_in_bytes"), stat: file("stat"), events: file("oom_control"),
				cache: []string{"total_inactive_file", "total_active_file"},
			}
		}
	}
	return &memory{}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// kills returns how many processes the kernel has killed so far because the
// group had no memory left.
func (m *memory) kills() int64 { return rows(m.events, "oom_kill") }

// max returns the limit in bytes, 0 when there is none.
func (m *memory) max() int64 {
	n := number(m.limit)
	if n <= 0 || n > 1<<50 { // v1 writes "none" as a number that no machine has
		return 0
	}
	return n
}

// used returns how many bytes are in use that the kernel cannot take back.
func (m *memory) used() int64 {
	current := number(m.current)
	m.highest = max(m.highest, current)
	return current - rows(m.stat, m.cache...)
}

// tight reports whether so much is in use that the kernel may soon kill.
func (m *memory) tight() bool {
	limit := m.max()
	if limit == 0 {
		return false
	}
	return m.used() >= limit/100*tightPercent
}

// String says what there is and what was used of it, for people.
func (m *memory) String() string {
	peak := number(m.peak)
	if peak <= 0 {
		peak = max(m.highest, number(m.current))
	}
	if limit := m.max(); limit > 0 {
		return fmt.Sprintf("limit %s, peak %s", mebibytes(limit), mebibytes(peak))
	}
	return "no limit of its own, peak " + mebibytes(peak)
}

func mebibytes(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// number returns what a file holds that has one number, and 0 for any other.
func number(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// rows returns the sum of some rows of a file of names and numbers.
func rows(path string, names ...string) (sum int64) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		for _, wanted := range names {
			if name == wanted {
				n, _ := strconv.ParseInt(value, 10, 64)
				sum += n
			}
		}
	}
	return sum
}
