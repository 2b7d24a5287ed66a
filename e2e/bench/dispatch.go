package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// dispatch is B1: an idle agent, one deployment after the other.
func dispatch(ctx context.Context, b *bench, out io.Writer) error {
	fmt.Fprint(out, "Floor: for docker, creating and starting a container of the same image through the engine's API; for process, starting `true`.\n"+
		"Ours: from the server's time stamp of the creation to that of the executor's first report.\n\n"+besideHeader)
	targets := []string{"process"}
	if b.image != "" {
		targets = append(targets, "docker")
	}
	met := ""
	for _, target := range targets {
		ours, floor, err := b.dispatchOn(ctx, target)
		if err != nil {
			return err
		}
		beside(out, target, ours, floor)
		p50, p95 := ours.p50()-floor.p50(), ours.p95()-floor.p95()
		met += fmt.Sprintf("- %s: over the floor by %s (p50, target 50 ms) and %s (p95, target 150 ms): %s\n",
			target, ms(p50), ms(p95), verdict(p50 <= 50*time.Millisecond && p95 <= 150*time.Millisecond))
	}
	fmt.Fprint(out, "\n"+met)
	return nil
}

func (b *bench) dispatchOn(ctx context.Context, target string) (ours, floor series, err error) {
	s, err := b.site(ctx, "b1-"+target, target)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = s.close(err) }()
	if _, err := s.deploy(ctx, s.noop(nil)); err != nil { // fills the executor's volume
		return nil, nil, err
	}
	for range b.samples(200, 10) {
		f, err := s.floorStart(ctx)
		if err != nil {
			return nil, nil, err
		}
		d, err := s.deploy(ctx, s.noop(nil))
		if err != nil {
			return nil, nil, err
		}
		o, err := firstInstruction(d)
		if err != nil {
			return nil, nil, err
		}
		floor, ours = append(floor, f), append(ours, o)
	}
	return ours, floor, nil
}

// floorStart starts what cannot be started any faster.
func (s *site) floorStart(ctx context.Context) (time.Duration, error) {
	if s.docker == nil {
		begin := time.Now()
		cmd := exec.CommandContext(ctx, "true")
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		took := time.Since(begin)
		return took, cmd.Wait()
	}
	begin := time.Now()
	created, err := s.docker.ContainerCreate(ctx, &container.Config{Image: s.image, Cmd: []string{"true"}},
		&container.HostConfig{NetworkMode: "host"}, nil, nil, "")
	if err != nil {
		return 0, err
	}
	if err := s.docker.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	return took, s.docker.ContainerRemove(ctx, created.ID, container.RemoveOptions{Force: true})
}

// overhead is B2: everything there is around an operation that does nothing.
func overhead(ctx context.Context, b *bench, out io.Writer) (err error) {
	if b.image == "" {
		return fmt.Errorf("needs a Docker engine")
	}
	s, err := b.site(ctx, "b2", "docker")
	if err != nil {
		return err
	}
	defer func() { err = s.close(err) }()
	if _, err := s.deploy(ctx, s.noop(nil)); err != nil {
		return err
	}
	var ours, floor series
	for range b.samples(40, 5) {
		begin := time.Now()
		if out, err := exec.CommandContext(ctx, "docker", "run", "--rm", "--network", "host", s.image, "true").CombinedOutput(); err != nil {
			return fmt.Errorf("docker run: %w: %s", err, out)
		}
		floor = append(floor, time.Since(begin))
		took, err := s.createToRemoved(ctx)
		if err != nil {
			return err
		}
		ours = append(ours, took)
	}
	fmt.Fprint(out, "Floor: `docker run --rm --network host IMAGE true`. Ours: from the create call to the engine's word that the container is gone, with\n"+
		"the same image and network; the job has four steps (one of them runs the stand-in for the Pulumi CLI), each a fresh shell, with all status and log calls.\n\n"+besideHeader)
	beside(out, "docker", ours, floor)
	ratio := float64(ours.p50()) / float64(floor.p50())
	fmt.Fprintf(out, "\n- %.2f x `docker run --rm` (target 1.3 x): %s\n", ratio, verdict(ratio <= 1.3))
	return nil
}

func (s *site) createToRemoved(ctx context.Context) (time.Duration, error) {
	listen, cancel := context.WithCancel(ctx)
	defer cancel()
	destroyed, failed := s.docker.Events(listen, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("event", "destroy"), filters.Arg("label", "run.longshore.job"))})
	begin := time.Now()
	created, err := s.Create(ctx, stack, s.noop(nil))
	if err != nil {
		return 0, err
	}
	select {
	case <-destroyed:
	case err := <-failed:
		return 0, err
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("deployment %s: its container is not gone after a minute", created.ID)
	}
	took := time.Since(begin)
	d, err := s.WaitEnd(ctx, stack, created.ID)
	if err == nil && d.Status != "succeeded" {
		err = fmt.Errorf("deployment %s: %s", created.ID, d.Status)
	}
	return took, err
}
