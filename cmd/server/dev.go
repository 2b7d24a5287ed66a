package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend/docker"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/lifecycle"
)

// poolName is the pool of dev.
const poolName = "dev"

// dev runs the control plane and one agent until it is stopped.
func dev(ctx context.Context, s settings, environ []string, stdout, stderr io.Writer) error {
	ctx, stops := lifecycle.Listen(ctx, nil, os.Interrupt, syscall.SIGTERM)
	defer stops.Done()
	dir, err := filepath.Abs(s.dataDir)
	if err != nil {
		return &failure{err}
	}
	if s.tokenFile == "" {
		s.tokenFile = filepath.Join(s.dataDir, "user-token")
	}
	target, why := chooseTarget(ctx, s.deployTarget)
	if s.backendURL == "" && target == agent.TargetProcess {
		state := filepath.Join(dir, "state")
		if err := os.MkdirAll(state, 0o700); err != nil {
			return &failure{unusable(s.dataDir, err)}
		}
		s.backendURL = "file://" + state
	}
	p, err := open(ctx, s, stdout, stderr)
	if err != nil {
		return err
	}
	defer p.close()
	poolFile := filepath.Join(s.dataDir, "pool-token")
	token, err := p.pool(ctx, poolFile)
	if err != nil {
		return &failure{fmt.Errorf("agent pool: %w", err)}
	}
	a, err := agent.New(agent.Config{ //nolint:contextcheck // what it opens lives as long as Run
		ServiceURL: p.localURL(), JobServiceURL: p.publicURL,
		Token:       func() (string, error) { return token, nil },
		Pool:        poolName,
		Concurrency: s.slots,
		Target:      target, Docker: agent.DockerConfig{Network: s.dockerNetwork, Pull: s.pullPolicy}, Process: agent.ProcessConfig{Environ: environ},
		WorkingDirectory: filepath.Join(dir, "agent"),
		DefaultImage:     s.defaultImage,
	}, agent.Deps{Log: p.log.Named("agent"), Registerer: p.registry, Version: version})
	if err != nil {
		return &failure{err}
	}
	fmt.Fprintf(stdout, "listening on %s\n  user token  %s\n  pool token  %s\n  target      %s (%s)\n  state       %s\n",
		p.localURL(), s.tokenFile, poolFile, target, why,
		cmp.Or(s.backendURL, "no Pulumi backend is set: use --backend-url, or PULUMI_BACKEND_URL in a deployment"))
	return p.runWith(ctx, a, stops.Draining())
}

// runWith runs server and agent. The server outlives the agent, so that jobs can
// report their end to it.
func (p *plane) runWith(ctx context.Context, a *agent.Agent, drain <-chan struct{}) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)

	agentEnded := make(chan struct{})
	var parts sync.WaitGroup
	var serverErr error
	parts.Go(func() {
		serverErr = p.server.Serve(context.WithoutCancel(ctx), p.listener, agentEnded, p.stopFor)
		if serverErr != nil {
			giveUp(serverErr)
		}
	})
	parts.Go(func() { // an idle agent waits for the poll that is held for it
		select {
		case <-drain:
		case <-ctx.Done():
		case <-agentEnded:
		}
		p.server.StopWork()
	})
	began := time.Now()
	err := a.Run(ctx, drain)
	close(agentEnded)
	parts.Wait()
	p.log.Info("server ended", zap.Duration("after", time.Since(began)), zap.Error(errors.Join(err, serverErr)))
	if err := errors.Join(err, serverErr); err != nil {
		return &failure{err}
	}
	return stopped(ctx)
}

// chooseTarget returns where jobs run, and why there.
func chooseTarget(ctx context.Context, wanted string) (target, why string) {
	if wanted != targetAuto {
		return wanted, "as --deploy-target says"
	}
	engine, err := docker.New(docker.Config{
		ExecutorSource: func(context.Context, string) (string, error) { return "", errors.New("only asked whether it is there") },
	})
	if err == nil {
		err = engine.Check(ctx)
	}
	if err != nil {
		return agent.TargetProcess, err.Error()
	}
	return agent.TargetDocker, "a Docker engine answers"
}

// pool returns the token of dev's agent pool: the one in the file when it is
// alive, else that of a new pool.
func (p *plane) pool(ctx context.Context, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token != "" {
		principal, err := p.control.Authenticate(ctx, token)
		if err == nil && principal.Kind == control.KindPool {
			return token, nil
		}
		if refused := new(api.Error); err != nil && !errors.As(err, &refused) {
			return "", err
		}
	}
	name := poolName
	for n := 2; ; n++ {
		made, err := p.control.CreatePool(ctx, p.organization, api.CreateOrgAgentPoolRequest{Name: name, Description: "the agent of longshore-server dev"})
		if taken := new(api.Error); errors.As(err, &taken) && taken.Code == http.StatusConflict && n < 100 {
			name = fmt.Sprintf("%s-%d", poolName, n)
			continue
		}
		if err != nil {
			return "", err
		}
		return made.TokenValue, replace(file, made.TokenValue)
	}
}
