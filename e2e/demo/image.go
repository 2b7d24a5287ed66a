package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/client"
)

// imageAvailable returns nil when an engine answers and has the image, or its
// registry does. Its error says in plain words why docker is not the target.
func imageAvailable(ctx context.Context, image string) error {
	if runtime.GOOS != "linux" {
		return errors.New("containers reach this demo's loopback servers only on Linux")
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	docker, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return fmt.Errorf("no Docker engine: %w", err)
	}
	defer docker.Close()
	if _, err := docker.Ping(ctx); err != nil {
		return errors.New("no Docker engine answers")
	}
	_, err = docker.ImageInspect(ctx, image)
	if err == nil {
		return nil
	}
	if !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("the Docker engine cannot say whether it has %s: %w", image, err)
	}
	if _, err := docker.DistributionInspect(ctx, image, ""); err != nil {
		return fmt.Errorf("the Docker engine has no image %s and cannot reach its registry", image)
	}
	return nil
}
