package docker

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/longshore-run/longshore/internal/backend"
)

// Left lists the containers that carry this agent's mark. A Backend without an
// owner has none.
func (b *Backend) Left(ctx context.Context) ([]backend.Remnant, error) {
	if b.config.Owner == "" {
		return nil, nil
	}
	call, cancel := b.call(ctx)
	defer cancel()
	found, err := b.client.ContainerList(call, container.ListOptions{
		All:     true,
		Filters: filters.NewArgs(filters.Arg("label", backend.LabelOwner+"="+b.config.Owner), filters.Arg("label", backend.LabelJob)),
	})
	if err != nil {
		return nil, b.explain(ctx, fmt.Errorf("list containers: %w", err))
	}
	var left []backend.Remnant
	for _, c := range found {
		if c.State == container.StateRemoving {
			continue
		}
		left = append(left, backend.Remnant{
			JobID: c.Labels[backend.LabelJob], DeploymentID: c.Labels[backend.LabelDeployment],
			Started: c.State != container.StateCreated,
		})
	}
	return left, nil
}

// Adopt finds the container of a job by its name, and makes sure that it is
// this agent's.
func (b *Backend) Adopt(ctx context.Context, jobID string) (backend.Workload, error) {
	call, cancel := b.call(ctx)
	defer cancel()
	found, err := b.client.ContainerInspect(call, containerName(jobID))
	switch {
	case errdefs.IsNotFound(err):
		return nil, backend.ErrGone
	case err != nil:
		return nil, b.explain(ctx, fmt.Errorf("inspect container: %w", err))
	case found.Config.Labels[backend.LabelJob] != jobID || found.Config.Labels[backend.LabelOwner] != b.config.Owner:
		return nil, backend.ErrGone
	}
	return newWorkload(b, found.ID, backend.Limits{
		CPUs: float64(found.HostConfig.NanoCPUs) / 1e9, MemoryBytes: found.HostConfig.Memory, Pids: pids(found.HostConfig),
	}), nil
}

func pids(h *container.HostConfig) int64 {
	if h.PidsLimit == nil {
		return 0
	}
	return max(*h.PidsLimit, 0)
}
