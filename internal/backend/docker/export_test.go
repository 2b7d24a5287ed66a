package docker

import (
	"context"
	"time"
)

// VolumeName returns the name of the volume that holds the executor at path.
func VolumeName(path string) (string, error) { return newVolumes().nameFor(path) }

// The sweeps, narrowed to what carries a label of the test's own: other agents
// may be using the same engine.

func (b *Backend) SweepJobs(ctx context.Context, label string, now time.Time) ([]string, error) {
	return b.sweepContainers(ctx, label, b.abandoned(now))
}

func (b *Backend) SweepVolumes(ctx context.Context, label string, now time.Time) ([]string, error) {
	return b.sweepVolumesWith(ctx, label, now)
}

func (b *Backend) SweepImages(ctx context.Context) ([]string, error) {
	return b.sweepImages(ctx, time.Time{})
}

// SetClock sets the time at which images are used.
func (b *Backend) SetClock(now func() time.Time) { b.pulled.now = now }
