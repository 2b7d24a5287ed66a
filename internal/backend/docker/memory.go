package docker

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

const (
	// sigkill is the exit code of a process that died of SIGKILL.
	sigkill = 137
	// oomPatience is how long after a container's end the engine may still learn
	// that memory ran out in it. On a machine under load that takes more than half
	// a second; only the end of a failed job with a limit waits for it.
	oomPatience = 2 * time.Second
)

// ranOutOfMemory asks the engine's events whether memory ran out in a container
// that has ended.
//
// State.OOMKilled alone does not tell. The engine hears of the end of a
// container and of its lack of memory by two ways (cgroup v1: an eventfd), sets
// the flag only when the second comes first, and reports the rest as an event.
// Both mean any process of the container, not only the first. Engines keep a few
// hundred events in memory, so one that was restarted has forgotten.
func (w *workload) ranOutOfMemory(ctx context.Context, found container.InspectResponse, exit backend.Exit) bool {
	unexplained := exit.Code == sigkill && !w.killed.Load()
	if w.limits.MemoryBytes == 0 && !unexplained {
		return false
	}
	end, err := time.Parse(time.RFC3339Nano, found.State.FinishedAt)
	if err != nil {
		return false
	}
	// A job that succeeded had time: what was killed was killed long before.
	if exit.Report == nil || exit.Report.Outcome != api.OutcomeSucceeded {
		end = end.Add(oomPatience)
	}
	ctx, cancel := w.backend.call(ctx)
	defer cancel()
	// The times are the engine's own. It ends the answer at the last of them.
	messages, errs := w.backend.client.Events(ctx, events.ListOptions{
		Since: found.State.StartedAt, Until: end.Format(time.RFC3339Nano),
		Filters: filters.NewArgs(
			filters.Arg("container", w.id), filters.Arg("event", string(events.ActionOOM))),
	})
	select {
	case <-messages:
		return true
	case err := <-errs:
		if !errors.Is(err, io.EOF) {
			w.backend.config.Log.Debug("no answer about the memory of a container", zap.String("container", w.ID()), zap.Error(err))
		}
		return false
	}
}
