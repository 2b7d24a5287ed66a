package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"

	"github.com/longshore-run/longshore/internal/backend"
)

// How long what is nobody's stays. An agent that is away for a day has lost its
// jobs long ago: the service fails them after minutes of silence.
const (
	endedGrace  = 24 * time.Hour // ended containers of other agents
	volumeGrace = 24 * time.Hour // executors of other versions
)

// Sweep removes the ended containers of agents that have not come back for a
// day, the helpers of agents that died, the executors that no container uses, and
// images beyond the budget.
func (b *Backend) Sweep(ctx context.Context) (removed []string, err error) {
	call, cancel := b.call(ctx)
	info, err := b.client.Info(call)
	cancel()
	if err != nil {
		return nil, b.explain(ctx, err)
	}
	now, err := time.Parse(time.RFC3339Nano, info.SystemTime) // all times below are the engine's
	if err != nil {
		return nil, fmt.Errorf("the engine's time: %w", err)
	}
	var errs []error
	for _, sweep := range []func(context.Context, time.Time) ([]string, error){b.sweepJobs, b.sweepHelpers, b.sweepVolumes, b.sweepImages} {
		some, err := sweep(ctx, now)
		removed, errs = append(removed, some...), append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// sweepJobs removes ended containers of other agents, once their end is long
// ago. Whose ends are remembered is for the agent itself to remove.
func (b *Backend) sweepJobs(ctx context.Context, now time.Time) ([]string, error) {
	return b.sweepContainers(ctx, backend.LabelJob, b.abandoned(now))
}

func (b *Backend) abandoned(now time.Time) func(container.InspectResponse) bool {
	return func(c container.InspectResponse) bool {
		return c.Config.Labels[backend.LabelOwner] != b.config.Owner && ended(c, now, endedGrace)
	}
}

// sweepHelpers removes the containers that fill volumes, when their agent must
// have died.
func (b *Backend) sweepHelpers(ctx context.Context, now time.Time) ([]string, error) {
	return b.sweepContainers(ctx, labelExecutor, func(c container.InspectResponse) bool {
		created, err := time.Parse(time.RFC3339Nano, c.Created)
		return err == nil && now.Sub(created) > staleAfter && !c.State.Running
	})
}

// sweepContainers removes the containers with a label that nobody's says are.
func (b *Backend) sweepContainers(ctx context.Context, label string, nobodys func(container.InspectResponse) bool) (removed []string, err error) {
	call, cancel := b.call(ctx)
	found, err := b.client.ContainerList(call, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label))})
	cancel()
	if err != nil {
		return nil, b.explain(ctx, fmt.Errorf("list containers: %w", err))
	}
	for _, c := range found {
		if c.State == container.StateRunning || c.State == container.StatePaused {
			continue
		}
		call, cancel := b.call(ctx)
		inspected, err := b.client.ContainerInspect(call, c.ID)
		cancel()
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return removed, b.explain(ctx, err)
		}
		if !nobodys(inspected) {
			continue
		}
		if err := b.removeContainer(ctx, c.ID); err != nil {
			return removed, err
		}
		removed = append(removed, "container "+shortID(c.ID))
	}
	return removed, nil
}

// ended reports whether a container is not running and has not for that long.
func ended(c container.InspectResponse, now time.Time, grace time.Duration) bool {
	if c.State.Running || c.State.Paused || c.State.Restarting {
		return false
	}
	last := c.Created
	if finished, err := time.Parse(time.RFC3339Nano, c.State.FinishedAt); err == nil && finished.Year() > 1 {
		last = c.State.FinishedAt
	}
	at, err := time.Parse(time.RFC3339Nano, last)
	return err == nil && now.Sub(at) > grace
}

// sweepVolumes removes executors that no container mounts and this agent does
// not use. An agent that does finds it missing, and fills it again.
func (b *Backend) sweepVolumes(ctx context.Context, now time.Time) ([]string, error) {
	return b.sweepVolumesWith(ctx, labelExecutor, now)
}

func (b *Backend) sweepVolumesWith(ctx context.Context, label string, now time.Time) (removed []string, err error) {
	call, cancel := b.call(ctx)
	defer cancel()
	found, err := b.client.VolumeList(call, volume.ListOptions{
		Filters: filters.NewArgs(filters.Arg("label", label), filters.Arg("dangling", "true")),
	})
	if err != nil {
		return nil, b.explain(ctx, fmt.Errorf("list volumes: %w", err))
	}
	for _, v := range found.Volumes {
		created, err := time.Parse(time.RFC3339, v.CreatedAt)
		if err != nil || now.Sub(created) < volumeGrace || b.volumes.isFilled(v.Name) {
			continue
		}
		err = b.client.VolumeRemove(call, v.Name, false)
		switch {
		case err == nil:
			removed = append(removed, "volume "+v.Name)
		case errdefs.IsNotFound(err), errdefs.IsConflict(err): // gone, or in use again
		default:
			return removed, b.explain(ctx, fmt.Errorf("remove volume %s: %w", v.Name, err))
		}
	}
	return removed, nil
}
