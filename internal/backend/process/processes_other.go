//go:build !linux

package process

import (
	"syscall"
	"time"
)

// awaitEnd reports that it cannot wait without reaping.
func awaitEnd(int) bool { return false }

// killFound kills the executor and its process group. Other systems than Linux
// have no process table that could be searched for the rest. Killing through
// cmd.Process is safe at any time; the group is killed first.
func (w *workload) killFound() {
	if w.reaped || w.process == nil {
		return
	}
	select {
	case <-w.ended:
	default:
		_ = syscall.Kill(-w.leader.PID, syscall.SIGKILL)
		_ = w.process.Kill()
	}
}

// awaitOther asks every second, for want of anything better.
func awaitOther(l leader) {
	for l.alive() {
		time.Sleep(time.Second)
	}
}

// alive cannot tell a process from another one that got its id.
func (l leader) alive() bool { return l.PID > 1 && syscall.Kill(l.PID, 0) == nil }

func startOf(int) uint64 { return 0 }

// findLeader finds none: there is no process table to search.
func findLeader(string) int { return 0 }

func oomKills() int64 { return 0 }

// operating finds nothing: there is no process table to search.
func (w *workload) operating() bool { return false }
