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

	"github.com/longshore-run/longshore/internal/host"
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

// awaitOther blocks until a process has ended that may be another's child.
func awaitOther(l leader) {
	fd, err := unix.PidfdOpen(l.PID, 0)
	if err != nil {
		return // there is none
	}
	defer unix.Close(fd)
	if !l.alive() { // its id was somebody else's already when it was opened
		return
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor is a small number
	for {
		if _, err := unix.Poll(poll, -1); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// alive reports whether l still runs, and its id is its own.
func (l leader) alive() bool {
	if l.PID <= 1 || l.Boot != host.BootID() {
		return false
	}
	p, ok := statOf(l.PID)
	return ok && p.start == l.Start && p.state != "Z" && p.state != "X"
}

// startOf returns when a process was started, 0 when there is none.
func startOf(pid int) uint64 {
	p, _ := statOf(pid)
	return p.start
}

func statOf(pid int) (processEntry, bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return processEntry{}, false
	}
	return parseStat(string(data))
}

// findLeader searches for the executor of a job: the leader of a session whose
// environment names the job's directory. It returns 0 when there is none.
func findLeader(dir string) int {
	for _, p := range processTable() {
		if p.pid == p.session && p.state != "Z" && p.state != "X" && marked(p.pid, dir) {
			return p.pid
		}
	}
	return 0
}

// killFound kills every process of the job that can be found: those of the
// executor's session, those whose environment or working directory names the
// job's directory, and the descendants of all of these. What a program can do to
// hide is to leave all four at once, by a fork whose parent has ended, into a
// new session, with an empty environment and another working directory. Once the
// executor is reaped, its id and that of its session may be somebody else's, and
// what is searched for are the marks alone.
func (w *workload) killFound() {
	executor := w.leader.PID
	if w.reaped || !w.leader.alive() && w.child == nil {
		executor = -1
	}
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

// operating reports whether a process of the job runs the executor's program:
// the command of a step that outlives its executor.
func (w *workload) operating() bool {
	program, err := filepath.EvalSymlinks(w.leader.Program)
	if err != nil {
		return false
	}
	for _, p := range processTable() {
		if p.pid == w.leader.PID || p.state == "Z" || p.state == "X" || !marked(p.pid, w.dir) {
			continue
		}
		if exe, err := os.Readlink("/proc/" + strconv.Itoa(p.pid) + "/exe"); err == nil && exe == program {
			return true
		}
	}
	return false
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
	if marked(pid, w.dir) {
		return true
	}
	cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil && (cwd == w.dir || strings.HasPrefix(cwd, w.dir+"/"))
}

// marked reports whether the environment of a process names the directory of a
// job.
func marked(pid int, dir string) bool {
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	mark := []byte(markVariable + "=" + dir)
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if bytes.Equal(entry, mark) {
			return true
		}
	}
	return false
}

type processEntry struct {
	pid, parent, session int
	state                string
	start                uint64 // in clock ticks since the host's start
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
	fields := strings.Fields(line[end+2:]) // from the third on: state, parent, process group, session
	const startField = 22 - 3
	if err != nil || len(fields) <= startField {
		return processEntry{}, false
	}
	parent, err1 := strconv.Atoi(fields[1])
	session, err2 := strconv.Atoi(fields[3])
	start, err3 := strconv.ParseUint(fields[startField], 10, 64)
	return processEntry{pid: pid, parent: parent, session: session, state: fields[0], start: start}, errors.Join(err1, err2, err3) == nil
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
