package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

const (
	// waitAttempt bounds one call that waits for the end of a container, so that
	// an answer which got lost is asked for again.
	waitAttempt = 5 * time.Minute
	// retryMin and retryMax bound the wait between calls while the engine does
	// not answer.
	retryMin = 100 * time.Millisecond
	retryMax = 2 * time.Second
	// printedTail is how much of what an executor printed is kept.
	printedTail = 8 << 10
)

// maxUnread is how often the report is asked for again of an engine that
// answers and fails.
const maxUnread = 8

// workload is one job's container. What its methods learn about the end is kept
// in exit, so that all of them tell the same.
type workload struct {
	backend *Backend
	id      string
	limits  backend.Limits

	asking chan struct{} // a lock around asked, one that waiting for can be given up
	asked  bool          // whether SIGTERM was sent

	killed atomic.Bool  // whether SIGKILL was sent
	unread atomic.Int32 // how often the engine failed to hand out the report

	mu      sync.Mutex
	ended   bool
	exit    backend.Exit
	exitErr error // ErrGone
}

func newWorkload(b *Backend, id string, limits backend.Limits) *workload {
	return &workload{backend: b, id: id, limits: limits, asking: make(chan struct{}, 1)}
}

// ID returns the short id of the container.
func (w *workload) ID() string { return shortID(w.id) }

// Wait blocks until the container has ended. It survives an engine that goes
// away and comes back.
func (w *workload) Wait(ctx context.Context) (backend.Exit, error) {
	lost := false // whether the engine was away meanwhile
	pause := retryMin
	for {
		if ended, exit, err := w.known(); ended {
			return exit, err
		}
		exit, err := w.waitOnce(ctx, lost)
		switch {
		case err == nil:
			return w.remember(exit, nil)
		case errdefs.IsNotFound(err), errors.Is(err, backend.ErrGone):
			return w.remember(backend.Exit{}, backend.ErrGone)
		case ctx.Err() != nil:
			return backend.Exit{}, context.Cause(ctx)
		case errors.Is(err, errStillRunning):
			pause = retryMin
			continue
		}
		if !lost {
			w.backend.config.Log.Warn("lost the Docker engine while a job runs, asking again until it answers",
				zap.String("container", w.ID()), zap.Error(err))
		}
		lost = true
		if err := sleep(ctx, pause); err != nil {
			return backend.Exit{}, err
		}
		pause = min(2*pause, retryMax)
	}
}

var errStillRunning = errors.New("still running")

// waitOnce asks for the end of the container once, and collects what is left of
// it.
func (w *workload) waitOnce(ctx context.Context, lost bool) (backend.Exit, error) {
	attempt, cancel := context.WithTimeout(ctx, waitAttempt)
	defer cancel()
	results, errs := w.backend.client.ContainerWait(attempt, w.id, container.WaitConditionNotRunning)
	select {
	case result := <-results:
		if result.Error != nil {
			w.backend.config.Log.Warn("the engine reports an error of a container's end",
				zap.String("container", w.ID()), zap.String("error", result.Error.Message))
		}
		return w.collect(ctx, lost)
	case err := <-errs:
		if attempt.Err() != nil && ctx.Err() == nil {
			return backend.Exit{}, errStillRunning
		}
		return backend.Exit{}, err
	}
}

// collect describes a container that has ended.
func (w *workload) collect(ctx context.Context, lost bool) (backend.Exit, error) {
	call, cancel := w.backend.call(ctx)
	defer cancel()
	found, err := w.backend.client.ContainerInspect(call, w.id)
	if err != nil {
		return backend.Exit{}, err
	}
	exit := backend.Exit{Code: found.State.ExitCode}
	if exit.Report, err = w.report(ctx); err != nil {
		return backend.Exit{}, err
	}
	exit.OutOfMemory = found.State.OOMKilled || w.ranOutOfMemory(ctx, found, exit)
	if exit.Report == nil || exit.Report.Outcome == "" {
		// Whoever removes a running container has it killed first, which looks
		// like an end of its own but for the state.
		if s := found.State.Status; s == container.StateRemoving || s == container.StateDead {
			return backend.Exit{}, backend.ErrGone
		}
		exit.Reason = w.reason(ctx, found, exit.OutOfMemory, lost)
	}
	return exit, nil
}

// report returns the executor's last word, nil when it left none: the last line
// of its output, where it prints its final report, else the file that it keeps,
// which takes an older engine much longer to hand out.
func (w *workload) report(ctx context.Context) (*api.Report, error) {
	last := w.printed(ctx, container.LogsOptions{ShowStdout: true, Tail: "1"})
	if report := parseReport(last); report != nil && report.Outcome != "" {
		return report, nil
	}
	text, err := w.backend.readContainerFile(ctx, w.id, reportPath)
	if client.IsErrConnectionFailed(err) {
		return nil, err // ask again when the engine is back
	}
	if errdefs.IsInternal(err) && w.unread.Add(1) <= maxUnread {
		return nil, err // an engine that shuts down answers so
	}
	if err != nil {
		w.backend.config.Log.Warn("unreadable report", zap.String("container", w.ID()), zap.Error(err))
		return nil, nil //nolint:nilnil // no report is an answer
	}
	return parseReport(text), nil
}

// reason says in words why an executor ended that did not say so itself.
func (w *workload) reason(ctx context.Context, found container.InspectResponse, outOfMemory, lost bool) string {
	var parts []string
	switch {
	case outOfMemory && w.limits.MemoryBytes > 0:
		parts = append(parts, fmt.Sprintf("out of memory (limit %d MiB)", w.limits.MemoryBytes>>20))
	case outOfMemory:
		parts = append(parts, "out of memory")
	case lost:
		parts = append(parts, "the Docker engine was restarted")
	case found.State.ExitCode == sigkill:
		parts = append(parts, "killed by SIGKILL")
	}
	if found.State.Error != "" {
		parts = append(parts, found.State.Error)
	}
	if tail := w.printed(ctx, container.LogsOptions{ShowStderr: true, Tail: "50"}); tail != "" {
		parts = append(parts, "the executor printed: "+tail)
	}
	return strings.Join(parts, "; ")
}

// printed returns the end of what the executor printed, or nothing when that
// cannot be had.
func (w *workload) printed(ctx context.Context, options container.LogsOptions) string {
	ctx, cancel := w.backend.call(ctx)
	defer cancel()
	stream, err := w.backend.client.ContainerLogs(ctx, w.id, options)
	if err != nil {
		return ""
	}
	defer stream.Close()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, io.LimitReader(stream, maxSmallFile)); err != nil && text.Len() == 0 {
		return ""
	}
	tail := text.Bytes()
	if len(tail) > printedTail {
		tail = tail[len(tail)-printedTail:]
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(tail), "\uFFFD"))
}

// parseReport returns nil for what is no report: it was written where the job's
// own steps can write, too.
func parseReport(text string) *api.Report {
	var report api.Report
	if text == "" || json.Unmarshal([]byte(text), &report) != nil {
		return nil
	}
	return &report
}

// Stop sends SIGTERM to the executor, once, and kills the container when it has
// not ended after grace.
func (w *workload) Stop(ctx context.Context, grace time.Duration) error {
	patience, cancel := context.WithTimeoutCause(ctx, grace, errGraceOver)
	defer cancel()
	err := w.ask(patience)
	if err == nil {
		_, err = w.Wait(patience)
	}
	if settled(err) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !errors.Is(err, errGraceOver) {
		return err
	}
	if err := w.signal(ctx, "SIGKILL"); err != nil {
		return err
	}
	if _, err = w.Wait(ctx); settled(err) {
		return nil
	}
	return err
}

var errGraceOver = errors.New("grace is over")

// settled reports whether an answer of Wait means that the job has ended.
func settled(err error) bool { return err == nil || errors.Is(err, backend.ErrGone) }

// ask sends SIGTERM unless that was done before.
func (w *workload) ask(ctx context.Context) error {
	select {
	case w.asking <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-w.asking }()
	if w.asked {
		return nil
	}
	if err := w.signal(ctx, "SIGTERM"); err != nil {
		return err
	}
	w.asked = true
	return nil
}

// signal sends a signal, asking again while the engine does not answer. That a
// container has ended meanwhile is no error.
func (w *workload) signal(ctx context.Context, name string) error {
	if name == "SIGKILL" {
		w.killed.Store(true)
	}
	pause := retryMin
	for {
		call, cancel := w.backend.call(ctx)
		err := w.backend.client.ContainerKill(call, w.id, name)
		cancel()
		if err == nil || errdefs.IsConflict(err) || errdefs.IsNotFound(err) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !client.IsErrConnectionFailed(err) {
			return fmt.Errorf("send %s to container %s: %w", name, w.ID(), err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, retryMax)
	}
}

// Remove kills the container, keeps how it ended for later calls of Wait, and
// removes it.
func (w *workload) Remove(ctx context.Context) error {
	if ended, _, _ := w.known(); !ended {
		call, cancel := w.backend.call(ctx)
		defer cancel()
		if err := w.Stop(call, 0); err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return w.backend.removeContainer(ctx, w.id)
}

func (w *workload) known() (ended bool, exit backend.Exit, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended, w.exit, w.exitErr
}

// remember keeps the first answer and returns what is kept.
func (w *workload) remember(exit backend.Exit, err error) (backend.Exit, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended, w.exit, w.exitErr = true, exit, err
	}
	return w.exit, w.exitErr
}
