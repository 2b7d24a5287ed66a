// Command executor is the part of Longshore that lives inside a job. "run" is
// the job's first process: it supervises the steps and reports to the service.
// The other commands are what step scripts call; they take the flags of Pulumi's
// own executor (PROTOCOL 6) and ignore flags they do not know, because the
// service owns the scripts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// Exit codes of everything but "run", whose codes are api.Exit...: 0 done, 1
// failed, 2 usage; "pulumi" ends with the exit code of pulumi.
const (
	exitFailed = 1
	exitUsage  = 2
)

// exitCode ends the program with a code, without a message: everything was said.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// usageError is a command line that cannot be meant.
type usageError struct{ error }

// program is what commands share.
type program struct {
	environ        []string
	stdout, stderr io.Writer
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	p := &program{environ: environ, stdout: stdout, stderr: stderr}
	root := p.root() //nolint:contextcheck // cobra hands commands their context
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var (
		code  exitCode
		usage usageError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "longshore-executor: %v\nSee longshore-executor --help.\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "longshore-executor: %v\n", err)
	return exitFailed
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "longshore-executor",
		Short:         "Runs the steps of one deployment and reports them",
		Long:          "longshore-executor lives inside a job. An agent starts \"run\"; the other commands are called by the\nscripts of the job's steps and can be tried by hand.",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("longshore-executor {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(p.runCommand(), p.getsource(), p.dependencies(), p.cache(), p.pulumi(), p.credential(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(*cobra.Command, []string) { fmt.Fprintln(p.stdout, version) },
	})
	return root
}

// lenient makes a command of step scripts ignore flags that a later service may
// add.
func lenient(c *cobra.Command) *cobra.Command {
	c.FParseErrWhitelist = cobra.FParseErrWhitelist{UnknownFlags: true}
	return c
}

// need reports every flag that has no value and must have one.
func need(c *cobra.Command, names ...string) error {
	var errs []error
	for _, name := range names {
		if f := c.Flags().Lookup(name); f == nil || f.Value.String() == "" {
			errs = append(errs, fmt.Errorf("--%s is missing", name))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return usageError{errors.Join(errs...)}
}
