package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/host"
)

const (
	// crashLogLimit bounds what an executor may print. It prints nothing while
	// all is well, so it is looked at rarely.
	crashLogLimit = 4 << 20
	crashLogCheck = time.Minute
	// crashLogTail is how much of it becomes the reason of an exit.
	crashLogTail = 4 << 10
	// maxReport bounds the report: it lies where steps can write, too.
	maxReport = 1 << 20

	// lingerLimit bounds how long an operation may go on without its executor.
	// Nobody says meanwhile that the job lives, and services give up a job that
	// is silent for ten minutes.
	lingerLimit = 5 * time.Minute
	lingerCheck = 50 * time.Millisecond

	signalBase = 128 // plus a signal's number: the code of who died of it
)

// workload is one job's executor, and all that it started.
type workload struct {
	dir string
	log *zap.Logger
	// child is the executor when this process has started it, else nil.
	child  *exec.Cmd
	leader leader // who the executor is
	// process is the executor, for signals. Nil when an adopted one had ended.
	process *os.Process

	askOnce sync.Once
	askErr  error
	killed  atomic.Bool // by us

	oomBefore int64         // the host's count of processes killed for memory
	ended     chan struct{} // closed by own, which writes exit before that
	exit      backend.Exit

	table    sync.Mutex // held while processes are looked up by id and killed
	reaped   bool
	removing sync.Mutex
}

func newWorkload(dir string, log *zap.Logger) *workload {
	return &workload{dir: dir, log: log, oomBefore: oomKills(), ended: make(chan struct{})}
}

// own waits for the executor, by await where that is another's child. It ends
// with it, and owns exit until then.
func (w *workload) own(await func()) {
	defer close(w.ended)
	bounding, stop := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { w.boundCrashLog(bounding) })
	switch {
	case w.child == nil:
		await()
		w.reap()
		w.linger()
		w.killAll()
	case awaitEnd(w.leader.PID):
		// As in a container, what the executor leaves running ends with it.
		w.linger()
		w.killAll()
		w.reap()
	default:
		w.reap()
	}
	stop()
	watch.Wait()
	w.exit = w.collect()
}

// linger lets the operation of an executor that died end in order: its
// "longshore-executor pulumi" has seen the death and interrupts pulumi, once.
func (w *workload) linger() {
	if r := readReport(filepath.Join(w.dir, reportName)); r != nil && r.Outcome != "" {
		return // it did not die
	}
	over := time.Now().Add(min(w.leader.Grace, lingerLimit))
	said := false
	for !w.killed.Load() && time.Now().Before(over) && w.operating() {
		if !said {
			w.log.Warn("the executor of a job died; waiting for its operation to end in order", zap.String("directory", w.dir), zap.Time("until", over))
			said = true
		}
		time.Sleep(lingerCheck)
	}
}

// reap frees the executor's process id, which is that of its session, too.
func (w *workload) reap() {
	if w.child == nil || awaitEnd(w.leader.PID) {
		w.table.Lock()
		defer w.table.Unlock()
		w.reaped = true
	}
	if w.child != nil {
		_ = w.child.Wait() // an exit code that is not 0 is an answer
	}
}

// killAll kills every process of the job that can be found.
func (w *workload) killAll() {
	w.table.Lock()
	defer w.table.Unlock()
	w.killFound()
}

// boundCrashLog empties the crash log when it grows beyond its limit. The
// executor appends, so it goes on at the new end.
func (w *workload) boundCrashLog(ctx context.Context) {
	tick := time.NewTicker(crashLogCheck)
	defer tick.Stop()
	path := filepath.Join(w.dir, crashLogName)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if info, err := os.Lstat(path); err == nil && info.Size() > crashLogLimit {
			_ = os.Truncate(path, 0)
		}
	}
}

// collect describes an executor that has ended.
func (w *workload) collect() backend.Exit {
	exit := backend.Exit{Report: readReport(filepath.Join(w.dir, reportName))}
	told := exit.Report != nil && exit.Report.Outcome != ""
	var reason string
	switch {
	case w.child != nil:
		reason = w.collectChild(&exit)
	case told:
		exit.Code = exit.Report.Outcome.ExitCode()
	case w.killed.Load():
		exit.Code, reason = signalBase+int(syscall.SIGKILL), "killed by "+signalName(syscall.SIGKILL)
	case w.leader.Boot != "" && w.leader.Boot != host.BootID():
		exit.Code, reason = backend.CodeUnknown, "the host was restarted while the job ran"
	default:
		exit.Code, reason = backend.CodeUnknown, "the executor ended without a report, and the agent that started it was not there to see how"
	}
	if told {
		return exit
	}
	if tail := w.crashTail(); tail != "" {
		reason = strings.TrimPrefix(reason+"; the executor printed: "+tail, "; ")
	}
	exit.Reason = reason
	return exit
}

// collectChild describes the end of a child and returns the reason for it.
func (w *workload) collectChild(exit *backend.Exit) (reason string) {
	status, ok := w.child.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		exit.Code = w.child.ProcessState.ExitCode()
		return ""
	}
	exit.Code = signalBase + int(status.Signal())
	reason = "killed by " + signalName(status.Signal())
	if status.Signal() == syscall.SIGKILL && !w.killed.Load() && oomKills() > w.oomBefore {
		exit.OutOfMemory = true
		reason += "; the host ran out of memory"
	}
	return reason
}

// crashTail returns the last of what the executor printed.
func (w *workload) crashTail() string {
	file, err := os.Open(filepath.Join(w.dir, crashLogName))
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > crashLogTail {
		if _, err := file.Seek(-crashLogTail, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(file, crashLogTail))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(bytes.ToValidUTF8(text, []byte("\uFFFD"))))
}

// readReport returns nil for a report that is not there, or is none. It follows
// no link: a step could have put one there.
func readReport(path string) *api.Report {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxReport))
	if err != nil {
		return nil
	}
	var report api.Report
	if json.Unmarshal(data, &report) != nil {
		return nil
	}
	return &report
}

// ID returns the process id of the executor.
func (w *workload) ID() string { return strconv.Itoa(w.leader.PID) }

// Wait blocks until the executor has ended, and what it left with it.
func (w *workload) Wait(ctx context.Context) (backend.Exit, error) {
	select {
	case <-w.ended:
		return w.exit, nil
	default:
	}
	select {
	case <-w.ended:
		return w.exit, nil
	case <-ctx.Done():
		return backend.Exit{}, context.Cause(ctx)
	}
}

// Stop sends SIGTERM to the executor alone, once, and kills everything of the
// job when it has not ended after grace.
func (w *workload) Stop(ctx context.Context, grace time.Duration) error {
	w.askOnce.Do(func() {
		if w.process != nil {
			w.askErr = w.process.Signal(syscall.SIGTERM)
		}
	})
	if w.askErr != nil && !errors.Is(w.askErr, os.ErrProcessDone) {
		return fmt.Errorf("send SIGTERM to process %s: %w", w.ID(), w.askErr)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-w.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	return w.kill(ctx)
}

// kill kills the job and waits for its end.
func (w *workload) kill(ctx context.Context) error {
	select {
	case <-w.ended:
		return nil
	default:
	}
	w.killed.Store(true)
	w.killAll()
	select {
	case <-w.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Spool returns the executor's own spool.
func (w *workload) Spool(ctx context.Context, _ string) (string, error) {
	return w.below(ctx, spoolName)
}

// Kept returns the directory in which the job left it.
func (w *workload) Kept(ctx context.Context, _ string) (string, error) {
	return w.below(ctx, api.KeptName)
}

func (w *workload) below(ctx context.Context, name string) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	dir := filepath.Join(w.dir, name)
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return "", nil //nolint:nilerr // there is none
	}
	return dir, nil
}

// Remove kills the job, waits for its end, and removes its directory.
func (w *workload) Remove(ctx context.Context) error {
	if err := w.kill(ctx); err != nil {
		return err
	}
	w.removing.Lock()
	defer w.removing.Unlock()
	return removeAll(w.dir)
}

// removeAll removes a directory also where a job left directories that its own
// user may not write to, as Go's module cache does.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, dirMode) //nolint:gosec // WalkDir follows no links
		}
		return nil //nolint:nilerr // as much as can be done
	})
	return os.RemoveAll(dir)
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGABRT:
		return "SIGABRT"
	}
	return "signal " + strconv.Itoa(int(s))
}
