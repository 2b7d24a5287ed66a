package deps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// killAfter is how long an installer may go on after SIGINT.
const killAfter = 10 * time.Second

// quiet is what keeps installers from asking questions, and from looking for
// things that nobody asked for. What the job's own environment says wins.
var quiet = []string{
	"CI=true",
	"NPM_CONFIG_AUDIT=false", "NPM_CONFIG_FUND=false", "NPM_CONFIG_UPDATE_NOTIFIER=false",
	"COREPACK_ENABLE_DOWNLOAD_PROMPT=0", "YARN_ENABLE_TELEMETRY=0",
	"PIP_NO_INPUT=1", "PIP_DISABLE_PIP_VERSION_CHECK=1", "POETRY_NO_INTERACTION=1",
	"DOTNET_NOLOGO=1", "DOTNET_CLI_TELEMETRY_OPTOUT=1",
	"GIT_TERMINAL_PROMPT=0",
}

func run(ctx context.Context, c Command, out io.Writer, env []string) error {
	if c.Unless != "" {
		if _, err := os.Stat(c.Unless); err == nil {
			return nil
		}
	}
	env = environment(env, c.Env)
	path, err := lookPath(c.Args[0], c.Dir, env)
	if err != nil {
		return missing(c, err)
	}
	fmt.Fprintln(out, "$ "+strings.Join(c.Args, " "))
	cmd := exec.CommandContext(ctx, path, c.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.Dir, env, out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = killAfter
	err = cmd.Run()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: %w", strings.Join(c.Args, " "), context.Cause(ctx))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w: its own words are above", strings.Join(c.Args, " "), err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(c.Args, " "), err)
	}
	return nil
}

func missing(c Command, err error) error {
	name := filepath.Base(c.Args[0])
	hint := ""
	switch name {
	case "yarn", "pnpm":
		hint = " (where the image has Node.js, \"corepack enable\" in it adds " + name + ")"
	case "mvnw", "gradlew":
		hint = " (check that the wrapper is committed with its executable bit)"
	}
	return fmt.Errorf("%s is needed because of %s, and cannot be run: %w: use an image that has it%s, or set skipInstallDependencies and install in a pre-run command", name, c.For, err, hint)
}

// environment returns base with what it lacks of quiet, and more on top.
func environment(base, more []string) []string {
	env := slices.Clone(base)
	for _, kv := range quiet {
		key, _, _ := strings.Cut(kv, "=")
		// npm reads its variables in any case.
		if !slices.ContainsFunc(base, func(have string) bool { k, _, _ := strings.Cut(have, "="); return strings.EqualFold(k, key) }) {
			env = append(env, kv)
		}
	}
	return append(env, more...)
}

func getenv(env []string, key string) string {
	for _, kv := range slices.Backward(env) { // the last one counts
		if value, ok := strings.CutPrefix(kv, key+"="); ok {
			return value
		}
	}
	return ""
}

var errNotFound = errors.New("it is not in the PATH")

// lookPath finds a program in the PATH of env, not in that of this process.
func lookPath(program, dir string, env []string) (string, error) {
	if strings.ContainsRune(program, filepath.Separator) {
		if !filepath.IsAbs(program) {
			program = filepath.Join(dir, program)
		}
		return program, executable(program)
	}
	names := []string{program}
	if program == "python3" {
		names = append(names, "python")
	}
	for _, name := range names {
		for _, in := range filepath.SplitList(getenv(env, "PATH")) {
			if path := filepath.Join(in, name); filepath.IsAbs(path) && executable(path) == nil {
				return path, nil
			}
		}
	}
	return "", errNotFound
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return errors.New("it is not executable")
	}
	return nil
}

// activate makes the virtual environment that of the steps that follow: Pulumi
// takes the python of the PATH when Pulumi.yaml names no environment. PULUMI_ENV
// names the file of variables that is read between steps.
func activate(venv string, env []string) error {
	file := getenv(env, "PULUMI_ENV")
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("hand the virtual environment on to the next steps: %w", err)
	}
	env = activated(venv, env)
	_, err = fmt.Fprintf(f, "VIRTUAL_ENV=%s\nPATH=%s\n", venv, getenv(env, "PATH"))
	return errors.Join(err, f.Close())
}

// activated returns env with a virtual environment in use.
func activated(venv string, env []string) []string {
	path := filepath.Join(venv, "bin")
	if have := getenv(env, "PATH"); have != "" {
		path += string(filepath.ListSeparator) + have
	}
	return append(slices.Clone(env), "VIRTUAL_ENV="+venv, "PATH="+path)
}
