// Command longshore-server is the control plane: it takes deployments by a REST
// API, queues them, hands them to agents and keeps their logs.
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

	"github.com/longshore-run/longshore/internal/telemetry"
)

// version is set by the linker.
var version = "dev"

// The exit codes, which are documented and kept.
const (
	exitDone   = 0
	exitFailed = 1 // while starting or running
	exitUsage  = 2 // or configuration
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program: it takes everything from its arguments, so that tests can
// call it. It listens to signals while a server runs.
func run(ctx context.Context, args []string, environ []string, stdout, stderr io.Writer) int {
	root := newCommand(environ, stdout, stderr) //nolint:contextcheck // cobra hands ctx to the command
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		fmt.Fprintf(stderr, "longshore-server: %s\n", line)
	}
	if failed := new(failure); errors.As(err, &failed) {
		return exitFailed
	}
	return exitUsage
}

// failure is an error of a server that was called rightly, as opposed to a
// mistake in how it was called.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func newCommand(environ []string, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "longshore-server",
		Short: "Take, queue and hand out Pulumi deployments",
		Long: `longshore-server is the control plane of Longshore. It takes deployments by a
REST API, keeps them in a queue, hands each to one agent and keeps its log.

To try it out, with an agent in the same process:

  longshore-server dev

To run it as a service, with agents elsewhere:

  longshore-server serve --data-dir /var/lib/longshore --public-url https://longshore.example.com

Exit status: 0 done, 1 failed while starting or running, 2 wrong usage or
configuration.`,
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

func newServeCommand(environ []string, stdout, stderr io.Writer) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the control plane until told to stop",
		Long: `serve runs the control plane until it is told to stop. Everything it keeps is in
the directory of --data-dir: the database, and the key of the secrets in it. Back
up both: without the key the secrets cannot be read. The dependency cache is
there, too, unless --cache-url names a bucket, and needs no backup.

On the first start it makes a user with a token, and writes the token to
--token-file or prints it. It is kept nowhere else.

Each option is a flag and an environment variable (--public-url is
LONGSHORE_SERVER_PUBLIC_URL); the flag wins.

Signals: the first SIGTERM or SIGINT stops taking connections, answers the calls
it holds and lets the others finish, the second cuts them, the third leaves at
once. Jobs go on through a restart: what runs them reports when the server is
back.

It answers /healthz, /readyz and /metrics beside the API.`,
		Example: `  longshore-server serve --data-dir /var/lib/longshore --token-file /root/longshore-token
  LONGSHORE_SERVER_DATA_DIR=data longshore-server serve --listen :8480 --public-url https://longshore.example.com`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := o.settings(cmd.Flags(), environ)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), settings, stdout, stderr)
		},
	}
	o.addServerFlags(cmd.Flags(), "longshore-data", telemetry.FormatJSON)
	return cmd
}

func newDevCommand(environ []string, stdout, stderr io.Writer) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the control plane and one agent, to try things out",
		Long: `dev runs the control plane, an agent pool named dev and one agent of it in a
single process, and keeps everything below .longshore. It is for trying things
out and for developing; jobs of other people belong on an agent of their own.

The tokens of the first user and of the pool are in .longshore/user-token and
.longshore/pool-token.

Jobs run in containers when a Docker engine answers, else as processes of this
host with what is on its PATH; --deploy-target chooses. As processes they keep
Pulumi's state in .longshore/state unless --backend-url says otherwise.

Each option is a flag and an environment variable (--deploy-target is
LONGSHORE_SERVER_DEPLOY_TARGET); the flag wins.

Signals: the first SIGTERM or SIGINT lets the jobs in hand finish, the second
cancels them, gently, the third leaves at once.`,
		Example: `  longshore-server dev
  longshore-server dev --deploy-target process --listen 127.0.0.1:0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := o.settings(cmd.Flags(), environ)
			if err != nil {
				return err
			}
			return dev(cmd.Context(), settings, environ, stdout, stderr)
		},
	}
	o.addServerFlags(cmd.Flags(), ".longshore", telemetry.FormatConsole)
	o.addDevFlags(cmd.Flags())
	return cmd
}
