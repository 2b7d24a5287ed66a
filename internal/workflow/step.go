package workflow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// stop is a reason to end a step before its time.
type stop struct {
	outcome api.Outcome
	text    string
}

// proc is the running shell of a step.
type proc struct {
	cmd    *exec.Cmd
	output *pump
	exited chan struct{} // closed when the shell has been waited for
}

// start starts a command as the leader of a process group of its own, with both
// of its outputs in one pipe, so that their order is kept, and nothing to read.
func (w *walker) start(argv []string, dir string, env []string, log *stepLog) (*proc, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for the output: %w", err)
	}
	if raw, err := in.SyscallConn(); err == nil {
		_ = raw.Control(growPipe)
	}
	// The ladder ends the command, not a context: it must get exactly one SIGINT.
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = w.opts.Supervisor.start(cmd)
	_ = out.Close()
	if err != nil {
		_ = in.Close()
		if errors.Is(err, syscall.E2BIG) {
			return nil, errors.New("the environment of this step is larger than the system allows: pass large values in files")
		}
		return nil, fmt.Errorf("start the shell: %w", err)
	}
	p := &proc{cmd: cmd, output: startPump(in, log), exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = w.opts.Supervisor.wait(cmd) // its status is read from cmd.ProcessState
	}()
	return p, nil
}

// stopped tells whether the job should go on with its next step.
func (w *walker) stopped(ctx context.Context) *stop {
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	if !w.deadline.IsZero() && !time.Now().Before(w.deadline) {
		return w.jobTimedOut()
	}
	return nil
}

func cancelled(ctx context.Context) *stop {
	return &stop{api.OutcomeCancelled, context.Cause(ctx).Error()}
}

func (w *walker) jobTimedOut() *stop {
	return &stop{api.OutcomeTimedOut, fmt.Sprintf("the job took longer than its timeout of %s", w.plan.Timeout)}
}

// await waits for the end of a step, and brings it about when the job is
// cancelled, a timeout passes, the step is silent for too long, or memory runs
// short. forced is set when an interrupt was not enough.
func (w *walker) await(ctx context.Context, p *proc, s Step, log *stepLog) (why *stop, forced bool) {
	silent := newSilence(w.plan.IdleTimeout, p.output.quiet)
	defer silent.stop()
	stepTimer, jobTimer := after(s.Timeout), w.jobTimer()
	memoryTicks, stopTicks := w.memoryTicks()
	defer stopTicks()
	for why == nil {
		select {
		case <-p.exited:
			return nil, false
		case <-ctx.Done():
			why = cancelled(ctx)
		case <-stepTimer:
			why = &stop{api.OutcomeTimedOut, fmt.Sprintf("the step took longer than its timeout of %s", s.Timeout)}
		case <-jobTimer:
			why = w.jobTimedOut()
		case <-silent.ticks():
			if silent.tooLong() {
				why = &stop{api.OutcomeTimedOut, fmt.Sprintf("no output for %s", w.plan.IdleTimeout)}
			}
		case <-memoryTicks:
			if w.memory.tight() {
				log.say("warning: this job uses %s of its %s of memory (%d%% and more)", mebibytes(w.memory.used()), mebibytes(w.memory.max()), tightPercent)
				why = &stop{api.OutcomeOutOfMemory, "out of memory soon"}
			}
		}
	}
	return why, w.end(p, why, log)
}

// memoryTicks returns when to look whether memory runs short.
func (w *walker) memoryTicks() (ticks <-chan time.Time, stop func()) {
	if !w.opts.OwnMemory || w.memory.max() == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(memoryInterval)
	return t.C, t.Stop
}

func (w *walker) jobTimer() <-chan time.Time {
	if w.deadline.IsZero() {
		return nil
	}
	return time.After(time.Until(w.deadline))
}

func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

// end takes a step down the ladder. It returns when the shell and its process
// group are gone, and reports whether an interrupt was not enough.
func (w *walker) end(p *proc, why *stop, log *stepLog) (forced bool) {
	group := p.cmd.Process.Pid
	log.say("%s: sent an interrupt (SIGINT), the step has %s to finish", why.text, w.plan.Grace)
	_ = syscall.Kill(-group, syscall.SIGINT)
	if p.gone(w.plan.Grace, func(left time.Duration) { log.say("%s left to finish", left) }) {
		return false
	}
	log.say("the step did not finish within %s: sent SIGTERM, in %s it will be killed", w.plan.Grace, w.opts.KillGrace)
	_ = syscall.Kill(-group, syscall.SIGTERM)
	if p.gone(w.opts.KillGrace, nil) {
		return true
	}
	log.say("the step did not end: killed it (SIGKILL)")
	_ = syscall.Kill(-group, syscall.SIGKILL)
	if w.opts.Supervisor != nil {
		w.opts.Supervisor.KillAll()
	}
	if !p.gone(w.opts.KillGrace, nil) {
		log.say("a process of the step cannot be killed: it waits for a device or a network file system")
	}
	return true
}

// marks are the times left at which a log counts down.
var marks = []time.Duration{5 * time.Minute, 2 * time.Minute, time.Minute, 30 * time.Second, 10 * time.Second}

// gone waits until the shell and all of its process group have ended, for limit
// at most. The shell alone is not enough: some shells die of an interrupt at
// once while what they started is still finishing.
func (p *proc) gone(limit time.Duration, say func(left time.Duration)) bool {
	end := time.Now().Add(limit)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	poll := time.NewTicker(25 * time.Millisecond)
	defer poll.Stop()
	due := marks
	for len(due) > 0 && due[0] >= limit {
		due = due[1:]
	}
	exited := p.exited
	for {
		if exited == nil && !groupLives(p.cmd.Process.Pid) {
			return true
		}
		select {
		case <-exited:
			exited = nil
			continue
		case <-timeout.C:
			return false
		case <-poll.C:
		}
		if len(due) > 0 && time.Until(end) <= due[0] {
			if say != nil {
				say(due[0])
			}
			due = due[1:]
		}
	}
}

// verdict describes the end of the shell when it was no success. A shell that
// could not be ended is one that failed.
func (p *proc) verdict() string {
	select {
	case <-p.exited:
	default:
		return "could not be ended"
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		return fmt.Sprintf("was ended by a signal (%v)", status.Signal())
	case p.cmd.ProcessState.ExitCode() == 0:
		return ""
	}
	return fmt.Sprintf("exited with code %d", p.cmd.ProcessState.ExitCode())
}

// killed reports whether the shell died of SIGKILL, or says that what it ran did.
func (p *proc) killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && (status.Signal() == syscall.SIGKILL || status.ExitStatus() == 128+int(syscall.SIGKILL))
}

// adviseAfterKill says what a killed pulumi may have left behind.
func (w *walker) adviseAfterKill(log *stepLog) {
	stack := w.plan.Stack
	if stack == "" {
		stack = "<organization/project/stack>"
	}
	log.say("pulumi was ended before it could finish: the stack may still be locked and may have pending operations.")
	log.say("To mend it run: pulumi cancel --stack %s --yes   and then: pulumi refresh --stack %s", stack, stack)
}
