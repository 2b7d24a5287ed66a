package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend/docker"
	"github.com/longshore-run/longshore/internal/lifecycle"
	"github.com/longshore-run/longshore/internal/telemetry"
)

// devOptions are those of serve, and the agent's.
type devOptions struct {
	options
	target, network, pull string
	concurrency           int
}

func newDevCommand(environ []string, stdout, stderr io.Writer) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Server, one pool and one agent in one process, for trying things",
		Long: `dev serves the API as serve does and runs an agent of one pool beside it. It keeps
everything below --data-dir: the database, the tokens (user-token, pool-token) and
what jobs leave.

Signals: the first SIGTERM or SIGINT lets the jobs in hand finish, the second
cancels them gently, the third leaves at once.`,
		Example: "  longshore-server dev --deploy-target process",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(fromEnvironment(cmd.Flags(), environ), o.check(), o.checkTarget()); err != nil {
				return err
			}
			if o.tokenFile == "" {
				o.tokenFile = filepath.Join(o.dataDir, "user-token")
			}
			ctx, drain, done := lifecycle.Stops(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer done()
			if err := dev(ctx, drain, o, environ, stdout, stderr); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
	o.addFlags(cmd.Flags(), ".longshore", telemetry.FormatConsole)
	cmd.Flags().StringVar(&o.target, "deploy-target", "auto", "Where jobs run: docker, process, or auto: docker when an engine answers, else process.")
	cmd.Flags().StringVar(&o.network, "docker-network", "", "Docker network of the jobs; host lets them reach a server on this machine's loopback.")
	cmd.Flags().StringVar(&o.pull, "pull-policy", "missing", "When jobs' images are pulled: always, missing or never.")
	cmd.Flags().IntVar(&o.concurrency, "concurrency", 2, "Jobs at the same time.")
	return cmd
}

func (o *devOptions) checkTarget() error {
	var errs []error
	switch o.target {
	case "auto", agent.TargetDocker, agent.TargetProcess:
	default:
		errs = append(errs, fmt.Errorf("--deploy-target %q: want docker, process or auto", o.target))
	}
	if o.concurrency < 1 {
		errs = append(errs, fmt.Errorf("--concurrency %d: want at least 1", o.concurrency))
	}
	return errors.Join(errs...)
}

// dev serves and runs the agent. The server outlives the agent, whose last words
// it must hear.
func dev(ctx context.Context, drain <-chan struct{}, o devOptions, environ []string, stdout, stderr io.Writer) error {
	p, err := newPlane(ctx, o.options, stdout, stderr)
	if err != nil {
		return err
	}
	defer func() {
		if err := p.close(); err != nil {
			p.log.Error("close the database", zap.Error(err))
		}
	}()
	a, why, err := newDevAgent(ctx, p, o, environ)
	if err != nil {
		return errors.Join(err, p.listener.Close())
	}
	fmt.Fprintf(stdout, "Longshore at %s\n  user token  %s\n  pool token  %s\n  target      %s (%s)\n",
		o.publicURL, o.tokenFile, poolTokenFile(o), o.target, why)

	serverDrain := make(chan struct{})
	var served error
	var server sync.WaitGroup
	server.Go(func() { served = p.serve(context.WithoutCancel(ctx), serverDrain) })
	// A drain answers held polls at once, so the agent's ends with it.
	stop := context.AfterFunc(drained(ctx, drain), p.server.Drain)
	ran := a.Run(ctx, drain)
	stop()
	close(serverDrain)
	server.Wait()
	return errors.Join(ran, served)
}

// drained returns a context that ends when drain is closed.
func drained(ctx context.Context, drain <-chan struct{}) context.Context {
	c, cancel := context.WithCancelCause(ctx)
	go func() { // ends with drain or with ctx, which the program's end cancels
		select {
		case <-drain:
			cancel(errors.New("draining"))
		case <-ctx.Done():
		}
	}()
	return c
}

func newDevAgent(ctx context.Context, p *plane, o devOptions, environ []string) (_ *agent.Agent, why string, err error) {
	why = "as asked"
	if o.target == "auto" {
		o.target, why = chooseTarget(ctx)
	}
	token, err := poolToken(ctx, p, o)
	if err != nil {
		return nil, "", err
	}
	directory, err := filepath.Abs(filepath.Join(o.dataDir, "agent"))
	if err != nil {
		return nil, "", err
	}
	a, err := agent.New(agent.Config{
		ServiceURL: "http://" + p.listener.Addr().String(), JobServiceURL: o.publicURL,
		Token:       func() (string, error) { return token, nil },
		Pool:        "dev",
		Concurrency: o.concurrency, Target: o.target,
		Docker:           agent.DockerConfig{Network: o.network, Pull: o.pull},
		Process:          agent.ProcessConfig{Environ: environ},
		WorkingDirectory: directory, DefaultImage: o.defaultImage,
	}, agent.Deps{Log: p.log, Health: telemetry.NewHealth(time.Hour), Registerer: prometheus.NewRegistry(), Version: version})
	return a, why, err
}

// chooseTarget takes docker when an engine answers.
func chooseTarget(ctx context.Context) (target, why string) {
	engine, err := docker.New(docker.Config{})
	if err == nil {
		err = engine.Check(ctx)
	}
	if err != nil {
		return agent.TargetProcess, err.Error()
	}
	return agent.TargetDocker, "a Docker engine answers"
}

func poolTokenFile(o devOptions) string { return filepath.Join(o.dataDir, "pool-token") }

// poolToken reads the token of the pool that an earlier start made, and makes a
// pool when there is none.
func poolToken(ctx context.Context, p *plane, o devOptions) (string, error) {
	content, err := os.ReadFile(poolTokenFile(o))
	if err == nil {
		token := strings.TrimSpace(string(content))
		if _, err := p.service.Authenticate(ctx, token); err == nil {
			return token, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the pool token: %w", err)
	}
	name := "dev"
	pools, err := p.service.Pools(ctx, o.organization)
	if err != nil {
		return "", err
	}
	if len(pools.AgentPools) > 0 { // its token is lost: tokens are stored as hashes only
		name = fmt.Sprintf("dev-%d", time.Now().Unix())
	}
	made, err := p.service.CreatePool(ctx, o.organization, api.CreateOrgAgentPoolRequest{Name: name, Description: "made by longshore-server dev"})
	if err != nil {
		return "", err
	}
	return made.TokenValue, writeSecret(poolTokenFile(o), []byte(made.TokenValue+"\n"))
}
