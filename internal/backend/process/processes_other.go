//go:build !linux

package process

import "syscall"

// awaitEnd reports that it cannot wait without reaping.
func awaitEnd(int) bool { return false }

// killFound kills the executor and its process group. Other systems than Linux
// have no process table that could be searched for the rest. Killing through
// cmd.Process is safe at any time; the group is killed first.
func (w *workload) killFound() {
	select {
	case <-w.ended:
	default:
		_ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL)
		_ = w.cmd.Process.Kill()
	}
}

func oomKills() int64 { return 0 }
