package workflow

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// memoryLimit watches the kernel's counter of processes killed because the
// control group of this process reached its memory limit.
type memoryLimit struct{ events, limit string }

// findMemoryLimit knows control groups v2 and, at their usual place, v1.
func findMemoryLimit() memoryLimit {
	group := "/"
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(b)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				group = path
			}
		}
	}
	for _, base := range []string{"/sys/fs/cgroup" + strings.TrimSuffix(group, "/"), "/sys/fs/cgroup"} {
		if _, err := os.Stat(base + "/memory.events"); err == nil {
			return memoryLimit{base + "/memory.events", base + "/memory.max"}
		}
	}
	const v1 = "/sys/fs/cgroup/memory/memory."
	return memoryLimit{v1 + "oom_control", v1 + "limit_in_bytes"}
}

// kills returns how often it has happened so far.
func (m memoryLimit) kills() int64 {
	f, err := os.Open(m.events)
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if n, ok := strings.CutPrefix(s.Text(), "oom_kill "); ok {
			v, _ := strconv.ParseInt(n, 10, 64)
			return v
		}
	}
	return 0
}

// String describes the limit for people, "" when there is none.
func (m memoryLimit) String() string {
	b, err := os.ReadFile(m.limit)
	if err != nil {
		return ""
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n <= 0 || n > 1<<50 {
		return ""
	}
	return fmt.Sprintf(" of %d MiB", n>>20)
}
