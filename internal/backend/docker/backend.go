// Package docker runs each job in a container of a Docker engine. It is the
// only package that knows Docker's API.
package docker

import (
	"context"
	"errors"
	"io"

	"github.com/docker/docker/client"

	"github.com/longshore-run/longshore/internal/backend"
)

// Backend starts jobs in containers of one Docker engine.
type Backend struct {
	config Config
	client *client.Client
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend. It does not contact the engine.
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
		return nil, err
	}
	return &Backend{config: config, client: c}, nil
}

// Check reports whether the engine answers.
func (b *Backend) Check(ctx context.Context) error {
	_, err := b.client.Ping(ctx)
	return err
}

// Start starts a job.
func (b *Backend) Start(context.Context, backend.Spec, io.Writer) (backend.Workload, error) {
	return nil, errors.ErrUnsupported
}
