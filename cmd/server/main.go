// Command longshore-server is the control plane: the Deployments REST API, the
// queue, the logs, and the side of the protocol that agents and executors speak.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

// The exit codes, which are documented and kept.
const (
	exitDone   = 0
	exitFailed = 1 // while running
	exitUsage  = 2 // or configuration
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program: it takes everything from its arguments, so that tests can
// call it. It listens to signals while a server runs.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := newCommand(environ, stdout, stderr) //nolint:contextcheck // cobra hands ctx to the command
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		fmt.Fprintf(stderr, "longshore-server: %s\n", line)
	}
	var failed *failure
	if errors.As(err, &failed) {
		return exitFailed
	}
	return exitUsage
}

// failure is an error of a running server, as opposed to a mistake in how it was
// called.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func newCommand(environ []string, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "longshore-server",
		Short: "The control plane of Longshore",
		Long: `longshore-server takes deployments through the public Deployments REST API, queues
them, hands each to one agent, and keeps their logs.

Try it with everything in one process:

  longshore-server dev

Run it for a team:

  longshore-server serve --listen 0.0.0.0:8480 --data-dir /var/lib/longshore \
    --public-url https://longshore.example.com

Exit status: 0 done, 1 failed while running, 2 wrong usage or configuration.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("longshore-server {{.Version}}\n")
	root.AddCommand(newServeCommand(environ, stdout, stderr), newDevCommand(environ, stdout, stderr), &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "longshore-server %s (%s/%s, %s)\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	})
	return root
}
