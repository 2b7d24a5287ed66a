// Package process runs each job as processes on the agent's own host.
package process

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/backend"
)

// Config is what a Backend needs to know.
type Config struct {
	// Directory below which jobs get theirs: <Directory>/jobs/<job id>.
	Directory string
	// ExecutorSource finds the executor for the host's architecture.
	ExecutorSource backend.ExecutorSource
	// Env is the agent's environment, as os.Environ returns it. Jobs get of it
	// only what is on the allow-list.
	Env []string
	// Log defaults to none.
	Log *zap.Logger
}

// Backend starts jobs as processes.
type Backend struct {
	config Config
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend.
func New(config Config) (*Backend, error) {
	if config.ExecutorSource == nil {
		return nil, errors.New("process: no executor source")
	}
	if config.Directory == "" {
		return nil, errors.New("process: no working directory")
	}
	dir, err := filepath.Abs(config.Directory)
	if err != nil {
		return nil, err
	}
	config.Directory = dir
	if config.Log == nil {
		config.Log = zap.NewNop()
	}
	return &Backend{config: config}, nil
}

// Check reports whether a job could be started now.
func (b *Backend) Check(context.Context) error { return nil }

// Start starts a job.
func (b *Backend) Start(context.Context, backend.Spec, io.Writer) (backend.Workload, error) {
	return nil, errors.ErrUnsupported
}
