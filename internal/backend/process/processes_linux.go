package process

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// killRounds bounds how often the process table is searched for what belongs to
// a job. Each round finds what was forked during the one before.
const (
	killRounds   = 20
	killPauseMin = time.Millisecond // between rounds; doubles
	killPauseMax = 100 * time.Millisecond
)

// awaitEnd blocks until a child has ended, and leaves it to be reaped: until
// then its process id, which is that of its session, is nobody else's. It
// reports whether it could.
func awaitEnd(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// killFound kills every process of the job that can be found: those of the
// executor's session, those whose environment or working directory names the
// job's directory, and the descendants of all of these. What a program can do to
// hide is to leave all four at once, by a fork whose parent has ended, into a
// new session, with an empty environment and another working directory.
func (w *workload) killFound() {
	executor := w.cmd.Process.Pid
	pause := killPauseMin
	for range killRounds {
		found := w.find(executor)
		if len(found) == 0 {
			return
		}
		for _, pid := range found {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(pause)
		pause = min(2*pause, killPauseMax)
	}
	w.log.Warn("processes of a job go on multiplying", zap.String("directory", w.dir))
}

// find returns the processes of the job that still run.
func (w *workload) find(executor int) []int {
	table := processTable()
	mine := map[int]bool{}
	for _, p := range table {
		if p.pid == executor || p.session == executor || w.named(p.pid) {
			mine[p.pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range table {
			if mine[p.parent] && !mine[p.pid] {
				mine[p.pid], grown = true, true
			}
		}
	}
	var alive []int
	for _, p := range table {
		if mine[p.pid] && p.state != "Z" && p.state != "X" && p.pid != os.Getpid() {
			alive = append(alive, p.pid)
		}
	}
	return alive
}

// named reports whether a process names the job's directory. Processes of other
// users cannot be read, and are not of the job.
func (w *workload) named(pid int) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	if environ, err := os.ReadFile(proc + "/environ"); err == nil {
		mark := []byte(markVariable + "=" + w.dir)
		for entry := range bytes.SplitSeq(environ, []byte{0}) {
			if bytes.Equal(entry, mark) {
				return true
			}
		}
	}
	cwd, err := os.Readlink(proc + "/cwd")
	return err == nil && (cwd == w.dir || strings.HasPrefix(cwd, w.dir+"/"))
}

type processEntry struct {
	pid, parent, session int
	state                string
}

// processTable reads /proc. What ends meanwhile is left out.
func processTable() []processEntry {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	table := make([]processEntry, 0, len(stats))
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if p, ok := parseStat(string(data)); ok {
			table = append(table, p)
		}
	}
	return table
}

// parseStat reads a line of /proc/PID/stat (proc(5)): the name in parentheses
// may hold anything, so fields are counted from the last of these.
func parseStat(line string) (processEntry, bool) {
	open, end := strings.Index(line, " ("), strings.LastIndex(line, ") ")
	if open < 0 || end < open {
		return processEntry{}, false
	}
	pid, err := strconv.Atoi(line[:open])
	fields := strings.Fields(line[end+2:]) // state, parent, process group, session
	if err != nil || len(fields) < 4 {
		return processEntry{}, false
	}
	parent, err1 := strconv.Atoi(fields[1])
	session, err2 := strconv.Atoi(fields[3])
	return processEntry{pid: pid, parent: parent, session: session, state: fields[0]}, err1 == nil && err2 == nil
}

// oomKills returns how many processes the host has killed for memory since it
// started, 0 when it does not tell.
func oomKills() int64 {
	data, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(count), 10, 64)
			return n
		}
	}
	return 0
}
