package workflow

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Supervisor makes this process answer for every process below it, those that
// left their process group included: it reaps the ones whose parents are gone
// and can find and kill them. There may be one per process; its owner calls
// Close when it is done. Its methods may be called concurrently.
//
// It never takes the exit status of a process that was started through it:
// those are known by their id and left to their own Wait.
type Supervisor struct {
	mu  sync.Mutex // held while a process starts, so that reap sees all of ours
	own map[int]bool

	signals chan os.Signal
	done    chan struct{}
	stopped sync.WaitGroup
}

// Between two looks through the process table. A fork storm must not turn into
// a storm of looks.
const reapInterval = 100 * time.Millisecond

// Supervise starts a Supervisor. On Linux the process becomes the parent of
// orphans below it (PR_SET_CHILD_SUBREAPER); as process 1 it already is.
func Supervise() (*Supervisor, error) {
	if err := becomeSubreaper(); err != nil {
		return nil, err
	}
	s := &Supervisor{
		own:     map[int]bool{},
		signals: make(chan os.Signal, 1),
		done:    make(chan struct{}),
	}
	signal.Notify(s.signals, syscall.SIGCHLD)
	s.stopped.Go(s.reapLoop)
	return s, nil
}

// Close stops reaping.
func (s *Supervisor) Close() {
	signal.Stop(s.signals)
	close(s.done)
	s.stopped.Wait()
}

// KillAll sends SIGKILL to every process below this one until none is left, for
// two seconds at most (a process in uninterruptible sleep does not go sooner).
func (s *Supervisor) KillAll() { s.insist(syscall.SIGKILL, 2*time.Second) }

// EndAll asks every process below this one to end with SIGTERM and kills, after
// the grace, those that are left.
func (s *Supervisor) EndAll(grace time.Duration) {
	left := living(descendants())
	if len(left) == 0 {
		return
	}
	for _, pid := range left {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	if !waitUntil(grace, func() bool { return len(living(descendants())) == 0 }) {
		s.KillAll()
	}
}

func (s *Supervisor) insist(sig syscall.Signal, limit time.Duration) {
	waitUntil(limit, func() bool {
		left := living(descendants())
		for _, pid := range left {
			_ = syscall.Kill(pid, sig)
		}
		return len(left) == 0
	})
}

func (s *Supervisor) start(cmd *exec.Cmd) error {
	if s == nil {
		return cmd.Start()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	s.own[cmd.Process.Pid] = true
	return nil
}

func (s *Supervisor) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	if s != nil {
		s.mu.Lock()
		delete(s.own, cmd.Process.Pid)
		s.mu.Unlock()
	}
	return err
}

func (s *Supervisor) reapLoop() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-s.done:
			s.reap()
			return
		case <-s.signals:
		}
		select { // one signal may stand for many
		case <-s.done:
		case <-pause.C:
		}
		s.reap()
		pause.Reset(reapInterval)
	}
}

// reap collects the zombies that nobody else will.
func (s *Supervisor) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	self := os.Getpid()
	for _, p := range processes() {
		if p.parent == self && p.dead() && !s.own[p.pid] {
			_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// waitUntil polls a condition of other processes, which nothing announces.
func waitUntil(limit time.Duration, met func() bool) bool {
	deadline := time.Now().Add(limit)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if met() {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
		time.Sleep(wait)
	}
}

// process is a row of the process table.
type process struct {
	pid, parent, group int
	state              byte
}

func (p process) dead() bool { return p.state == 'Z' || p.state == 'X' }

// descendants returns every process below this one.
func descendants() []process {
	children := map[int][]process{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p)
	}
	var out []process
	for next := []int{os.Getpid()}; len(next) > 0; {
		parent := next[0]
		next = next[1:]
		for _, p := range children[parent] {
			out = append(out, p)
			next = append(next, p.pid)
		}
	}
	return out
}

func living(ps []process) []int {
	var out []int
	for _, p := range ps {
		if !p.dead() {
			out = append(out, p.pid)
		}
	}
	return out
}

// groupLives reports whether a process group has a member that still runs.
// Zombies, which a signal would still reach, do not count.
func groupLives(group int) bool {
	if err := syscall.Kill(-group, 0); err == syscall.ESRCH {
		return false
	}
	table := processes()
	if table == nil {
		return true // no process table here: believe the signal
	}
	for _, p := range table {
		if p.group == group && !p.dead() {
			return true
		}
	}
	return false
}
