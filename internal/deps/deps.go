// Package deps installs what a Pulumi program needs before it can run. Which
// program to call, and how, is decided by Plan from Pulumi.yaml and the lock
// files alone, without running anything; Download carries the plan out. Plugins
// of Pulumi are not its business: the Pulumi CLI gets them when it needs them.
package deps

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Installation is what Plan decided.
type Installation struct {
	Runtime string // of Pulumi.yaml, in lower case
	// Why says in one line what was chosen and because of what, or why there is
	// nothing to do.
	Why      string
	Warnings []string  // what the user should know: lock files that do not count, and the like
	Commands []Command // in this order, each only after the one before succeeded
	// Activate is the Python virtual environment that Pulumi does not find by
	// itself, because Pulumi.yaml does not name it. Empty for none.
	Activate string
}

// Command is one call of an installer.
type Command struct {
	Dir  string   // where it runs
	Args []string // the program and its arguments
	Env  []string // what it needs beside the environment of the job
	For  string   // what asks for the program, for the message when it is missing
	// Unless names a file that makes the command unnecessary when it is there.
	Unless string
}

// Download installs the dependencies of the project in dir: Plan, and then what
// it says. What the installers print goes to out; env is their environment,
// "KEY=value" each, and where PATH is looked up. When ctx ends, the running
// installer gets one SIGINT and, ten seconds later, is killed. An installer that
// fails is an *exec.ExitError in the chain of the error.
func Download(ctx context.Context, dir string, out io.Writer, env []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	plan, err := Plan(dir, repositoryRoot(dir))
	if err != nil {
		return err
	}
	for _, warning := range plan.Warnings {
		fmt.Fprintln(out, "warning: "+warning)
	}
	fmt.Fprintln(out, plan.Why)
	for _, command := range plan.Commands {
		if err := run(ctx, command, out, env); err != nil {
			return err
		}
	}
	if plan.Activate != "" {
		return activate(plan.Activate, env)
	}
	return nil
}

// repositoryRoot returns the nearest directory from dir upwards that holds a
// .git, or dir when there is none.
func repositoryRoot(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return at
		}
		if filepath.Dir(at) == at {
			return dir
		}
	}
}
