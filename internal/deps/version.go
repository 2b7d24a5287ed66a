package deps

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// probeLimit is how long a program may take to say its version, or what it can.
const probeLimit = 30 * time.Second

var versionPattern = regexp.MustCompile(`\d+(?:\.\d+)+`)

// Version asks the runtime of the project in dir for its version, which is part
// of the keys of Recipes. It is "none" for a runtime that needs no packages.
func Version(ctx context.Context, dir, root string, env []string) (string, error) {
	plan, err := Plan(dir, root)
	if err != nil {
		return "", err
	}
	args := map[string][]string{
		"nodejs": {"node", "--version"},
		"bun":    {"bun", "--version"},
		"python": {"python3", "--version"},
		"go":     {"go", "version"},
		"dotnet": {"dotnet", "--version"},
		"java":   {"java", "-version"},
	}[plan.Runtime]
	if len(args) == 0 || plan.Manager == "" {
		return "none", nil
	}
	// The version is asked for where the program runs, because version managers
	// decide by the directory. Go is not to download another one for it.
	out, err := ask(ctx, plan.dir, slices.Concat(env, []string{"GOTOOLCHAIN=local"}), args...)
	if err != nil {
		return "", err
	}
	version := versionPattern.Find(out)
	if version == nil {
		return "", fmt.Errorf("%s says no version", args[0])
	}
	return string(version), nil
}

// ask returns what a program prints.
func ask(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	path, err := lookPath(args[0], dir, env)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probeLimit, fmt.Errorf("no answer within %s", probeLimit))
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(path), args[1], err)
	}
	return out.Bytes(), nil
}

// plugins has the Pulumi CLI get the plugins of the project in dir, where there is
// one that can. It is no failure when it does not: it gets them when the operation
// begins, and says then what is wrong.
func plugins(ctx context.Context, dir string, out io.Writer, env []string) error {
	help, err := ask(ctx, dir, env, "pulumi", "install", "--help")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil || !bytes.Contains(help, []byte("--no-dependencies")) {
		return nil //nolint:nilerr // an older one, or none: said by the operation
	}
	err = run(ctx, Command{Dir: dir, Args: []string{"pulumi", "install", "--no-dependencies"}}, out, env)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(out, "warning: %v; the operation gets the plugins itself\n", err)
		return nil
	}
	return err
}
