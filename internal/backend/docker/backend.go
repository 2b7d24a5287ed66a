// Package docker runs each job in a container of a Docker engine, or of
// another one that speaks its API. It is the only package that knows that API.
//
// Nothing is shared with the engine's host, unless a mirror is: the executor travels in a volume
// that is filled once per executor; the job file through the executor's standard
// input or, for users who are not root, by the call that copies an archive into
// a container; the report back through the executor's output, or by the call
// that copies out of the container. So the engine may be remote, and the agent
// may be a container itself.
//
// Every call that should be quick has a deadline, so that an engine which
// accepts a connection and never answers stops nothing but its own jobs' start.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

// linger is how long a call that changes something may go on after its caller
// gave up. The engine carries out a request whose client went away, so it is
// cleaner to hear the end of a short call than to abandon it.
const linger = 5 * time.Second

// Backend starts jobs in containers of one Docker engine. It is safe for
// concurrent use and holds no goroutines.
type Backend struct {
	config  Config
	client  *client.Client
	volumes *volumes
	pulled  *pulled

	mu       sync.Mutex
	accounts map[string]account // by image id and user
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend. It does not contact the engine; Check does.
func New(config Config) (*Backend, error) {
	if err := config.setDefaults(); err != nil {
		return nil, err
	}
	options := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if config.Host != "" {
		options = append(options, client.WithHost(config.Host))
	}
	c, err := client.NewClientWithOpts(options...)
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	if strings.HasPrefix(c.DaemonHost(), "ssh://") {
		return nil, fmt.Errorf("docker: host %s: ssh is not supported, use unix:// or tcp:// with TLS", c.DaemonHost())
	}
	return &Backend{config: config, client: c, volumes: newVolumes(), pulled: &pulled{path: config.PulledImages, now: time.Now}, accounts: map[string]account{}}, nil
}

// Close frees the connections to the engine. Jobs go on.
func (b *Backend) Close() error { return b.client.Close() }

// Start pulls the image as the policy says, makes sure that the executor is on
// the engine, then creates, fills and starts the job's container.
func (b *Backend) Start(ctx context.Context, spec backend.Spec, setup io.Writer) (backend.Workload, error) {
	image, err := b.image(ctx, spec.Image, setup)
	if client.IsErrConnectionFailed(err) && b.await(ctx, setup, b.explain(ctx, err)) {
		image, err = b.image(ctx, spec.Image, setup)
	}
	if err != nil {
		return nil, b.explain(ctx, err)
	}
	volume, err := b.executorVolume(ctx, image)
	if err != nil {
		return nil, b.explain(ctx, &backend.StartError{Reason: reasonExecutor, Err: err})
	}
	config := b.config
	id, err := b.create(ctx, plan(config, spec, image, volume))
	if config.MirrorDirectory != "" && errdefs.IsInvalidArgument(err) {
		// The directory may be gone, or be one of the agent's own container only.
		withMirror := err
		config.MirrorDirectory = ""
		if id, err = b.create(ctx, plan(config, spec, image, volume)); err == nil {
			b.config.Log.Warn("a job got no mirror", zap.String("job_id", spec.Job.JobID), zap.Error(withMirror))
		}
	}
	if err != nil {
		return nil, b.explain(ctx, err)
	}
	if config.MirrorDirectory != "" {
		spec.Job.MirrorDirectory = mirrorDir
	}
	fmt.Fprintf(setup, "created container %s\n", shortID(id))
	if err := b.bringUp(ctx, id, spec, image, volume); err != nil {
		b.discard(ctx, id)
		return nil, b.explain(ctx, err)
	}
	fmt.Fprintf(setup, "started container %s\n", shortID(id))
	return newWorkload(b, id, spec.Limits), nil
}

// create creates the container. After an error it may exist nevertheless, when
// only the answer was lost; its name tells.
func (b *Backend) create(ctx context.Context, p containerPlan) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	call, cancel := b.steady(ctx)
	defer cancel()
	created, err := b.client.ContainerCreate(call, p.Config, p.HostConfig, p.Networking, nil, p.Name)
	switch {
	case err == nil:
		for _, warning := range created.Warnings {
			b.config.Log.Debug("the engine warns", zap.String("container", shortID(created.ID)), zap.String("warning", warning))
		}
		return created.ID, nil
	case errdefs.IsConflict(err):
		return "", fmt.Errorf("a container named %s exists already: this job was started before", p.Name)
	case errdefs.IsInvalidArgument(err) && p.hasLimits():
		return "", startError(reasonLimits, "container limits: %s", registryMessage(err))
	case errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err):
		return "", fmt.Errorf("create container: %w", err)
	}
	b.discard(ctx, p.Name)
	return "", fmt.Errorf("create container: %w", err)
}

// bringUp starts a created container and gives it its job.
func (b *Backend) bringUp(ctx context.Context, id string, spec backend.Spec, image imageFacts, volume string) error {
	who, err := b.account(ctx, id, image)
	if err != nil {
		return &backend.StartError{Reason: reasonUser, Err: err}
	}
	job := spec.Job
	job.Directory, job.ReportPath = startDirectory(b.config, who), reportPath
	begin := b.startByCopy
	if handsOver(b.config, image) {
		begin = b.startByStdin
	}
	err = begin(ctx, id, job, who)
	if err == nil || ctx.Err() != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	// An operator may have pruned the executor's volume since it was filled.
	if complete, statErr := b.volumeComplete(ctx, id); statErr == nil && !complete {
		b.volumes.setFilled(volume, false)
		if _, err := b.executorVolume(ctx, image); err != nil {
			return &backend.StartError{Reason: reasonExecutor, Err: err}
		}
		return begin(ctx, id, job, who)
	}
	return err
}

// startByCopy puts the job file into the container, then starts it.
func (b *Backend) startByCopy(ctx context.Context, id string, job api.JobFile, who account) error {
	archive, err := jobArchive(job, who, time.Now())
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	call, cancel := b.steady(ctx)
	err = b.client.CopyToContainer(call, id, "/", archive, container.CopyToContainerOptions{})
	cancel()
	if err != nil {
		return fmt.Errorf("copy the job file into the container: %w", err)
	}
	return b.start(ctx, id)
}

// startByStdin starts the container and writes the job file to its executor.
func (b *Backend) startByStdin(ctx context.Context, id string, job api.JobFile, _ account) error {
	data, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("encode job file: %w", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	call, cancel := b.steady(ctx)
	defer cancel()
	stdin, err := b.client.ContainerAttach(call, id, container.AttachOptions{Stream: true, Stdin: true})
	if err != nil {
		return fmt.Errorf("attach to the container: %w", err)
	}
	defer stdin.Close()
	if err := b.start(ctx, id); err != nil {
		return err
	}
	stop := context.AfterFunc(call, func() { stdin.Close() })
	defer stop()
	if _, err := stdin.Conn.Write(data); err != nil {
		return fmt.Errorf("hand the job file to the executor: %w", err)
	}
	if err := stdin.CloseWrite(); err != nil {
		return fmt.Errorf("hand the job file to the executor: %w", err)
	}
	return nil
}

// start starts a container. It is not started when ctx has ended.
func (b *Backend) start(ctx context.Context, id string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	call, cancel := b.steady(ctx)
	defer cancel()
	err := b.client.ContainerStart(call, id, container.StartOptions{})
	if errdefs.IsNotFound(err) && b.config.Network != "" {
		return startError(reasonNetwork, "%s: create it, or name another network in the agent's configuration", registryMessage(err))
	}
	if err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

// discard removes a container that never became a workload, whatever has become
// of ctx. What it cannot remove it logs: the caller has an error to return.
func (b *Backend) discard(ctx context.Context, id string) {
	if err := b.removeContainer(context.WithoutCancel(ctx), id); err != nil {
		b.config.Log.Error("container left behind", zap.String("container", id), zap.Error(err))
	}
}

// removeContainer kills and removes a container with its anonymous volumes, and
// returns when it is gone.
func (b *Backend) removeContainer(ctx context.Context, id string) error {
	ctx, cancel := b.call(ctx)
	defer cancel()
	for {
		err := b.client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		switch {
		case err == nil || errdefs.IsNotFound(err):
			return nil
		case !errdefs.IsConflict(err):
			return fmt.Errorf("remove container %s: %w", shortID(id), err)
		}
		// Somebody else is removing it. Wait for the end of that.
		if err := sleep(ctx, fillPoll); err != nil {
			return fmt.Errorf("remove container %s: %w", shortID(id), err)
		}
	}
}

// call bounds a call that only asks.
func (b *Backend) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.config.CallTimeout)
}

// steady bounds a call that changes something: it goes on for a little while
// after ctx has ended.
func (b *Backend) steady(ctx context.Context) (context.Context, context.CancelFunc) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.config.CallTimeout)
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(linger, cancel)
		context.AfterFunc(call, func() { timer.Stop() })
	})
	return call, func() { stop(); cancel() }
}

func (p containerPlan) hasLimits() bool {
	r := p.HostConfig.Resources
	return r.NanoCPUs != 0 || r.Memory != 0 || r.PidsLimit != nil
}

func shortID(id string) string {
	const short = 12
	if len(id) == 64 {
		return id[:short]
	}
	return id
}

// sleep waits, and returns early with the cause when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
