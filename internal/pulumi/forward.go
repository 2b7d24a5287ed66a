package pulumi

import (
	"context"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
)

// forwarder decides which signals reach pulumi, over all commands of a request.
type forwarder struct {
	interrupted atomic.Bool // one SIGINT was sent, or came before there was anybody to get it
	terminated  bool
}

// runForwarding runs cmd in a process group of its own, so that a signal to ours
// does not reach it, and forwards what it should get.
func (f *forwarder) runForwarding(ctx context.Context, cmd *exec.Cmd, signals <-chan os.Signal, parent int) error {
	// The kernel's signal for the death of a parent (PR_SET_PDEATHSIG) is no use
	// here: it comes once for each thread of ours that ends before the last.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	gone, stopWatching := watch(parent)
	defer stopWatching()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	done := ctx.Done()
	for {
		select {
		case err := <-ended:
			return err
		case <-done:
			done = nil
			f.interrupt(cmd)
		case <-gone:
			gone = nil
			f.interrupt(cmd)
		case sig := <-signals:
			if sig == syscall.SIGTERM && f.interrupted.Load() {
				f.terminate(cmd)
				continue
			}
			// A SIGTERM that comes first is an interrupt, too: pulumi before 3.136
			// dies of SIGTERM without a word.
			f.interrupt(cmd)
		}
	}
}

func (f *forwarder) interrupt(cmd *exec.Cmd) {
	if f.interrupted.CompareAndSwap(false, true) {
		_ = syscall.Kill(cmd.Process.Pid, syscall.SIGINT)
	}
}

func (f *forwarder) terminate(cmd *exec.Cmd) {
	if !f.terminated {
		f.terminated = true
		_ = syscall.Kill(cmd.Process.Pid, syscall.SIGTERM)
	}
}

func exitCodeOf(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
