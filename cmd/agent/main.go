// Command longshore-agent claims deployments from a service and runs them on
// this machine or on a Docker engine.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longshore-run/longshore/internal/agent"
)

// version is set by the linker.
var version = "dev"

// The exit codes, which are documented and kept.
const (
	exitDone    = 0
	exitFailed  = 1 // while running
	exitUsage   = 2 // or configuration
	exitRefused = 3 // the token
)

func main() {
	// An idle agent should cost a host nothing: collect often, a small heap makes
	// it cheap.
	debug.SetGCPercent(50)
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program: it takes everything from its arguments, so that tests can
// call it. It listens to signals while an agent runs.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := newCommand(environ, stdout, stderr) //nolint:contextcheck // cobra hands ctx to the command
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		fmt.Fprintf(stderr, "longshore-agent: %s\n", line)
	}
	var failure *failure
	switch {
	case errors.Is(err, agent.ErrRefused):
		return exitRefused
	case errors.As(err, &failure):
		return exitFailed
	}
	return exitUsage
}

// failure is an error of a running agent, as opposed to a mistake in how it was
// called.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func newCommand(environ []string, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "longshore-agent",
		Short: "Run Pulumi deployments on your own machines",
		Long: `longshore-agent claims Pulumi deployments from a service, a Longshore server or
Pulumi Cloud, and runs each of them in a fresh container or process on your side
of the network. It needs no open port: it asks, the service answers.

Start with the access token of an agent pool:

  longshore-agent run --service-url https://longshore.example.com --token-file /etc/longshore/token

An existing pulumi-workflow-agent.yaml is read as it is.

Exit status: 0 done, 1 failed while running, 2 wrong usage or configuration,
3 the service refuses the token.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("longshore-agent {{.Version}}\n")
	root.AddCommand(newRunCommand(environ, stderr), newDrainCommand(environ), newStatusCommand(environ), newLogsCommand(environ, stderr), &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "longshore-agent %s (%s/%s, %s)\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	})
	return root
}
