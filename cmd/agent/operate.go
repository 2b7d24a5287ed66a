package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/longshore-run/longshore/internal/admin"
	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/config"
	"github.com/longshore-run/longshore/internal/lifecycle"
	"github.com/longshore-run/longshore/internal/telemetry"
)

// statusInterval is the time between two looks at an agent that is waited for.
const statusInterval = 500 * time.Millisecond

func newDrainCommand(environ []string) *cobra.Command {
	var wait bool
	var client func() (*admin.Client, error)
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Let the agent on this host finish its deployments and end",
		Long: `drain tells the agent that runs on this host to claim no more deployments and to
end when those in hand have, as a first SIGTERM does. The agent goes on for as
long as they take, or for --drain-timeout.

It finds the agent by its working directory: --working-directory, or what the
environment and the configuration file say, as for run.

Exit status: 0 when the agent drains, or, with --wait, has ended; 1 when no agent
answers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent, err := client()
			if err != nil {
				return err
			}
			status, err := agent.Drain(cmd.Context())
			if err != nil {
				return &failure{err}
			}
			fmt.Fprintln(cmd.OutOrStdout(), status)
			if !wait {
				return nil
			}
			if err := waitForEnd(cmd.Context(), agent, status, cmd.OutOrStdout()); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "Wait until the agent has ended.")
	client = addAgentFlags(cmd, environ)
	return cmd
}

func newStatusCommand(environ []string) *cobra.Command {
	var asJSON bool
	var client func() (*admin.Client, error)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the agent on this host is doing",
		Long: `status shows what the agent that runs on this host is doing: how many slots are in
use, which deployments it has in hand, and why it does not ask for more.

It finds the agent as drain does. Exit status: 0, or 1 when no agent answers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent, err := client()
			if err != nil {
				return err
			}
			status, err := agent.Status(cmd.Context())
			if err != nil {
				return &failure{err}
			}
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(status)
			}
			show(cmd.OutOrStdout(), status)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print the status as JSON.")
	client = addAgentFlags(cmd, environ)
	return cmd
}

// addAgentFlags declares the flags that say which agent is meant. The function
// that it returns gives the client of that one.
func addAgentFlags(cmd *cobra.Command, environ []string) func() (*admin.Client, error) {
	directory := cmd.Flags().String("working-directory", "", "Working directory of the agent (default as for run).")
	file := cmd.Flags().String("config", "", "Configuration file of the agent (default as for run).")
	return func() (*admin.Client, error) {
		if *directory != "" {
			path, err := filepath.Abs(*directory)
			return admin.NewClient(path), err
		}
		path, err := config.WorkingDirectory(configInput(environ, *file))
		return admin.NewClient(path), err
	}
}

// configInput says where a configuration comes from, flags aside.
func configInput(environ []string, file string) config.Input {
	home, program := getenv(environ, "HOME"), ""
	if path, err := os.Executable(); err == nil {
		program = path
	}
	return config.Input{Environ: environ, File: file, Directories: config.SearchPath(home, program)}
}

// waitForEnd returns when the agent no longer answers, and says what changes
// until then.
func waitForEnd(ctx context.Context, agent *admin.Client, last admin.Status, out io.Writer) error {
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	for {
		status, err := agent.Status(ctx)
		switch {
		case errors.Is(err, admin.ErrNoAgent), err == nil && status.PID != last.PID:
			fmt.Fprintln(out, "the agent has ended")
			return nil
		case err != nil:
			return err
		case status.String() != last.String():
			fmt.Fprintln(out, status)
			last = status
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func show(out io.Writer, s admin.Status) {
	fmt.Fprintf(out, "%s (process %d, version %s)\n", s, s.PID, s.Version)
	for _, reason := range s.Reasons {
		fmt.Fprintf(out, "  %s\n", reason)
	}
	for _, job := range s.Jobs {
		fmt.Fprintf(out, "  deployment %s, job %s, for %s\n", job.DeploymentID, job.JobID, time.Since(job.Since).Round(time.Second))
	}
}

// operated lets an operator reach a running agent.
type operated struct {
	agent  *agent.Agent
	stops  *lifecycle.Stops
	health *telemetry.Health
	slots  int
}

var errOrdered = errors.New("stopped by an order on the admin socket")

// Drain implements admin.Agent. It returns when the agent has noticed.
func (o operated) Drain() {
	o.stops.Drain()
	o.noticed()
}

// Cancel implements admin.Agent.
func (o operated) Cancel() {
	o.stops.Cancel(fmt.Errorf("%w: %w", lifecycle.ErrCancelled, errOrdered))
	o.noticed()
}

func (o operated) noticed() {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-o.agent.Stopping():
	case <-timer.C: // it has ended by itself
	}
}

// Status implements admin.Agent.
func (o operated) Status() admin.Status {
	state, until := o.agent.State()
	s := admin.Status{
		State: string(state), PID: os.Getpid(), Version: version, Slots: o.slots, Busy: o.agent.Busy(),
		Reasons: append(o.health.Reasons(), o.health.Notes()...), Jobs: []admin.Job{},
	}
	if !until.IsZero() && state == agent.Draining {
		s.Until = &until
	}
	for _, job := range o.agent.Jobs() {
		s.Jobs = append(s.Jobs, admin.Job{JobID: job.JobID, DeploymentID: job.DeploymentID, Since: job.Claimed})
	}
	return s
}
