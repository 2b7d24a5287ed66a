// Package deps installs what a Pulumi program needs before it can run. Which
// program to call, and how, is decided by Plan from Pulumi.yaml and the lock
// files alone, without running anything; Download carries the plan out, and has
// the Pulumi CLI get its plugins. What a cache can keep of that from one job to the
// next, and under which keys, is decided by Recipes.
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

	// Manager is the package manager, "" when nothing is to be installed.
	Manager string
	// sources are the files that decide what gets installed, and pinned says that
	// they name versions: lock files, or what stands in for one.
	sources []string
	pinned  bool
	// tree is the folder that the installer fills for this project alone, and that
	// it takes as it is when it fits; "" for none.
	tree string
	// store is what stands for Manager where its downloads are in other places;
	// empty when they are in the usual ones.
	store string
	dir   string // where the manager works
}

// Command is one call of an installer.
type Command struct {
	Dir  string   // where it runs
	Args []string // the program and its arguments
	Env  []string // what it needs beside the environment of the job
	For  string   // what asks for the program, for the message when it is missing
	// Unless names a file that makes the command unnecessary when it is there.
	Unless string
	// Kept, when not empty, are the arguments that do in place of Args when what
	// an earlier call installed is in its place: Args would begin anew.
	Kept []string
}

// Download installs the dependencies of the project in dir: Plan, and then what
// it says, and then the plugins of Pulumi. Kept says that what an earlier call
// installed by the same lock file is in its place (Recipe.Installed): it is
// verified and kept where the package manager can do that, and removed where it
// turns out not to fit.
//
// What the installers print goes to out; env is their environment, "KEY=value"
// each, and where PATH is looked up. When ctx ends, the running installer gets one
// SIGINT and, ten seconds later, is killed. An installer that fails is an
// *exec.ExitError in the chain of the error.
func Download(ctx context.Context, dir string, out io.Writer, env []string, kept bool) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	plan, err := Plan(dir, Root(dir))
	if err != nil {
		return err
	}
	for _, warning := range plan.Warnings {
		fmt.Fprintln(out, "warning: "+warning)
	}
	fmt.Fprintln(out, plan.Why)
	if err := plan.install(ctx, out, env, kept && plan.tree != ""); err != nil {
		return err
	}
	if plan.Activate != "" {
		if err := activate(plan.Activate, env); err != nil {
			return err
		}
		env = activated(plan.Activate, env)
	}
	return plugins(ctx, dir, out, env)
}

func (i Installation) install(ctx context.Context, out io.Writer, env []string, kept bool) error {
	if kept && i.Manager == "npm" {
		if why := unlike(i.dir); why != "" {
			fmt.Fprintln(out, "not verified but installed anew: "+why)
			kept = false
		} else if whole(i.dir) {
			fmt.Fprintln(out, "node_modules was kept and is what package-lock.json says: nothing to install")
			return nil
		}
	}
	for _, command := range i.Commands {
		if kept && len(command.Kept) > 0 {
			command.Args = command.Kept
		}
		err := run(ctx, command, out, env)
		switch {
		case err == nil:
		case kept && ctx.Err() == nil:
			fmt.Fprintf(out, "warning: what was kept does not do, installing anew: %v\n", err)
			if err := os.RemoveAll(i.tree); err != nil {
				return fmt.Errorf("remove what was kept: %w", err)
			}
			return i.install(ctx, out, env, false)
		default:
			return err
		}
	}
	return nil
}

// Root returns the nearest directory from dir upwards that holds a .git, or dir
// when there is none. Nothing above it is looked at.
func Root(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return at
		}
		if filepath.Dir(at) == at {
			return dir
		}
	}
}
