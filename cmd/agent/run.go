package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/admin"
	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/config"
	"github.com/longshore-run/longshore/internal/lifecycle"
	"github.com/longshore-run/longshore/internal/telemetry"
)

func newRunCommand(environ []string, stderr io.Writer) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Claim deployments and run them until told to stop",
		Long: `run claims deployments and runs them until it is told to stop.

Each option is a flag, an environment variable (--service-url is
LONGSHORE_AGENT_SERVICE_URL, or PULUMI_AGENT_SERVICE_URL) and a key of the
configuration file (service_url); the flag wins over the environment, the
environment over the file. The file is --config, or the first longshore-agent.yaml
or pulumi-workflow-agent.yaml in the current directory, the home directory, /etc
and the directory of this program.

Signals: the first SIGTERM or SIGINT drains (no new deployments, those in hand
finish), the second cancels what is in hand, gently, the third leaves at once and
leaves the jobs running for the next agent. --drain-timeout bounds the first.

"longshore-agent drain" and "longshore-agent status" talk to it on this host.

It answers /healthz, /readyz and /metrics on port 8080.`,
		Example: `  longshore-agent run --service-url https://longshore.example.com --token-file token
  LONGSHORE_AGENT_TOKEN=lsp-... longshore-agent run --deploy-target process --concurrency 4`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := configInput(environ, file)
			in.Flags = cmd.Flags()
			loaded, err := config.Load(in)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), loaded, environ, stderr)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "Configuration file; none is looked for when it is named.")
	config.AddFlags(cmd.Flags())
	cmd.Flags().SortFlags = false
	return cmd
}

// serve runs an agent, and the telemetry server beside it, until it is stopped.
func serve(ctx context.Context, loaded config.Result, environ []string, stderr io.Writer) error {
	c := &loaded.Agent
	log, err := telemetry.NewLogger(stderr, c.LogFormat, c.LogLevel)
	if err != nil {
		return err
	}
	for _, warning := range loaded.Warnings {
		log.Warn("configuration", zap.String("warning", warning))
	}
	registry := telemetry.NewRegistry("agent", version)
	health := telemetry.NewHealth(c.HealthThreshold)
	settings := agentConfig(c, environ)
	if err := addSource(settings.Env, c); err != nil {
		return err
	}
	a, err := agent.New(settings, agent.Deps{Log: log, Health: health, Registerer: registry, Version: version}) //nolint:contextcheck // what it opens lives as long as Run
	if err != nil {
		return err
	}
	ctx, stops := lifecycle.Listen(ctx, a.Abandon, os.Interrupt, syscall.SIGTERM)
	defer stops.Done()

	var servers sync.WaitGroup
	defer servers.Wait()
	serverCtx, stopServer := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopServer(nil)
	var address string
	if c.HTTPServerPort >= 0 {
		listener, err := telemetry.Listen(ctx, c.HTTPServerHost, c.HTTPServerPort)
		if err != nil {
			return err
		}
		address = reachable(listener.Addr())
		servers.Go(func() {
			if err := telemetry.Serve(serverCtx, listener, telemetry.Handler(health, registry)); err != nil {
				log.Error("telemetry server", zap.Error(err))
			}
		})
	}
	operators, err := admin.Listen(ctx, c.WorkingDirectory, operated{a, stops, health, c.Concurrency})
	switch {
	case errors.Is(err, admin.ErrTooLong):
		log.Warn("this agent cannot be reached by its drain and status commands", zap.Error(err))
	case err != nil:
		return err
	default:
		servers.Go(func() {
			if err := operators.Serve(serverCtx); err != nil {
				log.Error("admin socket", zap.Error(err))
			}
		})
	}
	if err := heedNotices(serverCtx, c, a, stops, log, &servers); err != nil {
		return err
	}
	log.Info("agent started",
		zap.String("version", version), zap.String("service_url", c.ServiceURL), zap.String("deploy_target", c.DeployTarget),
		zap.Int("concurrency", c.Concurrency), zap.String("working_directory", c.WorkingDirectory),
		zap.String("config_file", loaded.File), zap.String("http", address))
	began := time.Now()
	err = a.Run(ctx, stops.Draining())
	log.Info("agent ended", zap.Duration("after", time.Since(began)), zap.Error(err))
	if err != nil {
		return &failure{err}
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, lifecycle.ErrCancelled) {
		return &failure{fmt.Errorf("stopped: %w", cause)}
	}
	return nil
}

// agentConfig says in the agent's terms what the operator configured.
func agentConfig(c *config.Agent, environ []string) agent.Config {
	wait := c.PollWait
	if wait == 0 {
		wait = -1 // no waiting, as opposed to the default
	}
	retries := c.RequestRetryCount
	return agent.Config{
		ServiceURL: c.ServiceURL, JobServiceURL: c.JobServiceURL,
		Token: c.PoolToken(),
		Name:  c.Name, Pool: c.RunnerPoolID,
		Concurrency: c.Concurrency, MaxJobs: c.MaxJobs, IdleTimeout: c.IdleTimeout,
		Target:  c.DeployTarget,
		Docker:  agent.DockerConfig{Host: c.DockerHost, Network: c.DockerNetwork, Pull: c.PullPolicy, Capabilities: c.DockerCapabilities, ImageBudget: int64(c.ImageBudget)},
		Process: agent.ProcessConfig{Environ: environ},
		Cache: agent.CacheConfig{
			Backend: c.CacheBackend, URL: c.CacheURL, Port: c.CachePort, Shared: c.CacheScope == "project",
			MaxEntry: int64(c.CacheMaxEntry), MaxProject: int64(c.CacheMaxProject), Unread: c.CacheUnread,
			Environ: environ,
		},
		Limits:           backend.Limits{CPUs: c.JobCPUs, MemoryBytes: int64(c.JobMemory), Pids: int64(c.JobPids)},
		WorkingDirectory: c.WorkingDirectory, MinFree: int64(c.MinFree), MaxSkew: c.MaxSkew, ExecutorPath: c.ExecutorPath,
		DefaultImage: c.DefaultImage, OverrideImage: c.OverrideImage,
		Env:             forwarded(c.EnvForwardAllow, environ),
		KeepFailed:      c.KeepFailed,
		MirrorDirectory: c.SourceMirrorPath, MirrorBytes: int64(c.SourceMirrorMaxSize), LearnHosts: c.SourceAcceptNewHosts,

		PollWait: wait, PollingInterval: c.PollingInterval, PollingIntervalOverride: c.PollingIntervalOverride,
		JobStatusInterval: c.JobStatusLoopInterval, JobTimeout: c.JobTimeout, StepTimeout: c.StepTimeout, JobIdleTimeout: c.JobIdleTimeout,
		ChangeGrace: c.ChangeGrace, QuickGrace: c.QuickGrace, DrainTimeout: c.DrainTimeout,
		RequestTimeout: c.RequestTimeout, RequestRetries: retries,
		RequestRetryWait: c.RequestRetryWait, RequestRetryMaxWait: c.RequestRetryMaxWait,
		BreakerFailures: c.CircuitBreakerFailures, BreakerTimeout: c.CircuitBreakerTimeout,
	}
}

// forwarded picks the variables that jobs get from the agent's environment:
// those on the list, and always DOCKER_HOST.
func forwarded(names, environ []string) map[string]string {
	env := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if name == "DOCKER_HOST" || slices.Contains(names, name) {
			env[name] = value
		}
	}
	return env
}

// addSource tells the jobs how to get their source, where it is not the default.
func addSource(env map[string]string, c *config.Agent) error {
	for name, file := range map[string]struct{ key, path string }{
		"LONGSHORE_GIT_KNOWN_HOSTS": {"git_known_hosts", c.GitKnownHosts},
		"LONGSHORE_SOURCE_CA":       {"source.ca_bundle", c.SourceCABundle},
	} {
		if file.path == "" {
			continue
		}
		content, err := os.ReadFile(file.path)
		if err != nil {
			return fmt.Errorf("%s: %w", file.key, err)
		}
		env[name] = string(content)
	}
	if c.SourceEngine != "auto" {
		env["LONGSHORE_SOURCE_ENGINE"] = c.SourceEngine
	}
	for name, on := range map[string]bool{
		"LONGSHORE_SOURCE_SPARSE": c.SourceSparse, "LONGSHORE_SOURCE_SUBMODULES": c.SourceSubmodules, "LONGSHORE_SOURCE_LFS": c.SourceLFS,
		"LONGSHORE_SOURCE_KEEP_CREDENTIALS": c.SourceKeepCredentials,
	} {
		if !on {
			env[name] = "false"
		}
	}
	if c.SourceTimeout != time.Hour {
		env["LONGSHORE_SOURCE_TIMEOUT"] = c.SourceTimeout.String()
	}
	return nil
}

func getenv(environ []string, name string) string {
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// reachable returns the URL of a server that listens on address.
func reachable(address net.Addr) string {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
