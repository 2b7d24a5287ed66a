package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/backend"
)

// The executor reaches a container in a volume, not from a directory of the
// host: so a remote engine works, and an agent that is a container itself. A
// volume is named by the content of its executor and filled once; a marker,
// written last, says that it is complete.
//
// Agents on the same engine agree on who fills by the name of a helper
// container, which only one of them can create. It is never started.
const (
	labelExecutor        = "run.longshore.executor"
	labelExecutorVersion = "run.longshore.executor-version"

	markerName = ".complete"
	staleAfter = 2 * time.Minute        // of a helper whose agent died
	fillPoll   = 100 * time.Millisecond // between looks at somebody else's helper
)

// volumes remembers what this process knows about the executor's volumes.
type volumes struct {
	mu     sync.Mutex
	names  map[string]hashed // by path of the executor
	filled map[string]bool   // by volume name
	locks  map[string]chan struct{}
}

type hashed struct {
	size    int64
	modTime time.Time
	name    string
}

func newVolumes() *volumes {
	return &volumes{names: map[string]hashed{}, filled: map[string]bool{}, locks: map[string]chan struct{}{}}
}

// executorVolume returns the name of the volume that holds the executor for
// image, filling it when needed.
func (b *Backend) executorVolume(ctx context.Context, image imageFacts) (string, error) {
	executor, err := b.config.ExecutorSource(ctx, image.Architecture)
	if err != nil {
		return "", fmt.Errorf("executor for %s: %w", image.Architecture, err)
	}
	name, err := b.volumes.nameFor(executor)
	if err != nil {
		return "", fmt.Errorf("executor for %s: %w", image.Architecture, err)
	}
	unlock, err := b.volumes.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if b.volumes.isFilled(name) {
		return name, nil
	}
	if err := b.fillVolume(ctx, name, executor, image); err != nil {
		return "", fmt.Errorf("executor volume %s: %w", name, err)
	}
	b.volumes.setFilled(name, true)
	return name, nil
}

// fillVolume makes sure that the volume is complete. It looks and fills under
// the same lock, so two agents never write at the same time.
func (b *Backend) fillVolume(ctx context.Context, name, executor string, image imageFacts) error {
	create, cancel := b.steady(ctx)
	_, err := b.client.VolumeCreate(create, volume.CreateOptions{
		Name:   name,
		Labels: map[string]string{labelExecutor: name, labelExecutorVersion: b.config.ExecutorVersion},
	})
	cancel()
	if err != nil {
		return err
	}
	helper, err := b.lockVolume(ctx, name, image)
	if err != nil {
		return err
	}
	defer b.discard(ctx, helper)
	if complete, err := b.volumeComplete(ctx, helper); err != nil || complete {
		return err
	}
	b.config.Log.Info("filling the executor's volume", zap.String("volume", name))
	if err := b.copyExecutor(ctx, helper, executor); err != nil {
		return err
	}
	complete, err := b.volumeComplete(ctx, helper)
	if err == nil && !complete {
		err = errors.New("the engine took the executor and does not have it")
	}
	return err
}

// lockVolume creates the helper container, waiting while another agent has it.
func (b *Backend) lockVolume(ctx context.Context, name string, image imageFacts) (string, error) {
	for {
		id, err := b.createHelper(ctx, name, image)
		if err == nil || !errdefs.IsConflict(err) {
			return id, err
		}
		if err := b.awaitHelper(ctx, name); err != nil {
			return "", err
		}
	}
}

func (b *Backend) createHelper(ctx context.Context, name string, image imageFacts) (string, error) {
	ctx, cancel := b.steady(ctx)
	defer cancel()
	created, err := b.client.ContainerCreate(ctx,
		&container.Config{
			Image: image.ID, Entrypoint: []string{executorPath}, Cmd: []string{},
			Labels: map[string]string{labelExecutor: name, backend.LabelOwner: b.config.Owner},
		},
		&container.HostConfig{
			NetworkMode: "none",
			Mounts: []mount.Mount{{
				Type: mount.TypeVolume, Source: name, Target: binDir,
				VolumeOptions: &mount.VolumeOptions{NoCopy: true},
			}},
		}, nil, nil, name)
	return created.ID, err
}

// awaitHelper returns when the helper of another agent is gone, or has been
// removed because its agent must have died.
func (b *Backend) awaitHelper(ctx context.Context, name string) error {
	call, cancel := b.call(ctx)
	defer cancel()
	helper, err := b.client.ContainerInspect(call, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	const left = "removing what an agent left behind when it died filling the executor's volume"
	if owner := helper.Config.Labels[backend.LabelOwner]; owner != "" && owner == b.config.Owner {
		// This process has the lock of the volume, so it was the one before.
		b.config.Log.Info(left, zap.String("volume", name))
		return b.removeContainer(ctx, helper.ID)
	}
	info, err := b.client.Info(call)
	if err != nil {
		return err
	}
	// Both times are the engine's, so clocks need not agree.
	created, err1 := time.Parse(time.RFC3339Nano, helper.Created)
	now, err2 := time.Parse(time.RFC3339Nano, info.SystemTime)
	if err1 == nil && err2 == nil && now.Sub(created) > staleAfter {
		b.config.Log.Warn(left, zap.String("volume", name))
		return b.removeContainer(ctx, helper.ID)
	}
	return sleep(ctx, fillPoll)
}

func (b *Backend) volumeComplete(ctx context.Context, containerID string) (bool, error) {
	ctx, cancel := b.call(ctx)
	defer cancel()
	_, err := b.client.ContainerStatPath(ctx, containerID, binDir+"/"+markerName)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// copyExecutor streams the executor into the helper's volume.
func (b *Backend) copyExecutor(ctx context.Context, helper, executor string) error {
	ctx, cancel := context.WithTimeout(ctx, staleAfter)
	defer cancel()
	reader, writer := io.Pipe()
	var writing sync.WaitGroup
	writing.Go(func() { writer.CloseWithError(writeExecutorArchive(writer, executor, markerName)) })
	defer writing.Wait()
	defer func() { _ = reader.Close() }()
	return b.client.CopyToContainer(ctx, helper, binDir, reader, container.CopyToContainerOptions{})
}

// nameFor returns the volume name for an executor: a hash of its content,
// remembered for as long as the file does not change.
func (v *volumes) nameFor(executor string) (string, error) {
	info, err := os.Stat(executor)
	if err != nil {
		return "", err
	}
	v.mu.Lock()
	known, ok := v.names[executor]
	v.mu.Unlock()
	if ok && known.size == info.Size() && known.modTime.Equal(info.ModTime()) {
		return known.name, nil
	}
	file, err := os.Open(executor)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	name := "longshore-executor-" + hex.EncodeToString(sum.Sum(nil))[:16]
	v.mu.Lock()
	defer v.mu.Unlock()
	v.names[executor] = hashed{size: info.Size(), modTime: info.ModTime(), name: name}
	return name, nil
}

// lock takes the lock of one volume among the jobs of this process.
func (v *volumes) lock(ctx context.Context, name string) (unlock func(), err error) {
	v.mu.Lock()
	lock, ok := v.locks[name]
	if !ok {
		lock = make(chan struct{}, 1)
		v.locks[name] = lock
	}
	v.mu.Unlock()
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (v *volumes) isFilled(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.filled[name]
}

func (v *volumes) setFilled(name string, filled bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.filled[name] = filled
}
