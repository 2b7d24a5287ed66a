// Package pulumi runs one operation of the Pulumi CLI for a deployment: it
// chooses the arguments, makes sure that the stack is there where that is ours
// to do, and stands between pulumi and the signals of a cancel, so that pulumi
// gets exactly one interrupt. It does not install pulumi and does not read its
// output. Run is the whole of it.
package pulumi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Request is one operation to run.
type Request struct {
	Operation     api.Operation
	StackIdentity string // organization/project/stack
	Dir           string // of the project; empty is the current directory
	Debug         bool   // pulumi's own debug output

	Env            []string  // KEY=VALUE, handed to pulumi untouched
	Stdout, Stderr io.Writer // the same value for both keeps the order of the two
	// Signals brings the signals that this process received (SIGINT, SIGTERM).
	// Pulumi takes a second interrupt as "stop at once" and leaves resources
	// behind, so it gets one SIGINT however many signals arrive, the end of the
	// context counting as one; a SIGTERM that follows is passed on as SIGTERM,
	// once. The channel should have room for a few. May be nil.
	Signals <-chan os.Signal
	// Parent, when not 0, is the process id of the executor that supervises the
	// job. When that dies, pulumi is interrupted: nobody is left to report to.
	Parent int
}

// Run runs the operation and returns pulumi's exit code, 128 plus the signal
// when one ended it. An error means that pulumi could not be run; its text is
// for the job's log.
func Run(ctx context.Context, r Request) (exitCode int, err error) {
	stack, err := parseStack(r.StackIdentity)
	if err != nil {
		return 0, err
	}
	args, err := arguments(r.Operation, r.Debug)
	if err != nil {
		return 0, err
	}
	if err := checkDir(r.Dir); err != nil {
		return 0, err
	}
	program, err := findProgram(r.Env)
	if err != nil {
		return 0, err
	}
	c := &cli{Request: r, program: program}
	name := r.StackIdentity
	if url := backendURL(r.Env, r.Dir, os.ReadFile); url != "" && !isService(url) {
		// Such a backend has no organizations: "organization" stands for all.
		name = "organization/" + stack.project + "/" + stack.name
		if code, err := c.ensureStack(ctx, name, url); err != nil || code != 0 {
			return code, err
		}
		if c.interrupted.Load() {
			return 128 + int(syscall.SIGINT), nil
		}
	}
	return c.run(ctx, append(args, "--stack", name), r.Stdout, r.Stderr)
}

// arguments returns the command line of an operation, without the stack. Update
// and remediate-drift skip the preview, as the Automation API does: the
// deployment is the decision (PROTOCOL 6, PRODUCT 10).
func arguments(op api.Operation, debug bool) ([]string, error) {
	var args []string
	switch op {
	case api.OperationUpdate:
		args = []string{"up", "--yes", "--skip-preview"}
	case api.OperationPreview:
		args = []string{"preview"}
	case api.OperationRefresh:
		args = []string{"refresh", "--yes", "--skip-preview"}
	case api.OperationDestroy:
		args = []string{"destroy", "--yes", "--skip-preview"}
	case api.OperationDetectDrift:
		args = []string{"refresh", "--preview-only", "--expect-no-changes"}
	case api.OperationRemediateDrift:
		args = []string{"up", "--refresh", "--yes", "--skip-preview"}
	default:
		return nil, fmt.Errorf("unknown operation %q: want one of %v", op, api.Operations())
	}
	args = append(args, "--non-interactive")
	if debug {
		args = append(args, "--debug")
	}
	return args, nil
}

type stackName struct{ organization, project, name string }

func parseStack(identity string) (stackName, error) {
	parts := strings.Split(identity, "/")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return stackName{}, fmt.Errorf("stack identity %q: want organization/project/stack", identity)
	}
	return stackName{parts[0], parts[1], parts[2]}, nil
}

func checkDir(dir string) error {
	if dir == "" {
		return nil
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the project folder %s does not exist: check repoDir in the deployment's source settings", dir)
	case err != nil:
		return fmt.Errorf("project folder: %w", err)
	case !info.IsDir():
		return fmt.Errorf("the project folder %s is a file: check repoDir in the deployment's source settings", dir)
	}
	return nil
}

// findProgram looks along the PATH of the environment that pulumi will get.
func findProgram(env []string) (string, error) {
	for _, dir := range filepath.SplitList(lookup(env, "PATH")) {
		path, err := filepath.Abs(filepath.Join(dir, "pulumi"))
		if err != nil {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errors.New("pulumi is not on the PATH of this job: a job's image must hold the Pulumi CLI and the language runtime of the program (pulumi/pulumi does); for the process target, install it on the agent's host")
}

// ensureStack makes sure that the stack is there, in a backend that is no
// service. Under a service a missing stack is a mistake to report, never to
// mend, because stacks carry permissions there.
func (c *cli) ensureStack(ctx context.Context, name, url string) (exitCode int, err error) {
	var said bytes.Buffer
	code, err := c.run(ctx, []string{"stack", "select", name, "--non-interactive"}, &said, &said)
	if err != nil || code == 0 {
		return code, err
	}
	if !strings.Contains(said.String(), "no stack named") || c.interrupted.Load() {
		_, _ = c.Stderr.Write(said.Bytes())
		return code, nil
	}
	fmt.Fprintf(c.Stdout, "The stack %s does not exist yet in %s: creating it (pulumi stack init %s)\n", name, withoutUser(url), name)
	return c.run(ctx, []string{"stack", "init", name, "--non-interactive"}, c.Stdout, c.Stderr)
}

func lookup(env []string, name string) string {
	value := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v // the last one counts, as in exec
		}
	}
	return value
}

// lingerTime is how long output is read on when pulumi has ended and one of its
// plugins, which lives on for whatever reason, still holds it open.
const lingerTime = 2 * time.Second

// cli runs commands of one pulumi for one request.
type cli struct {
	Request
	program string
	forwarder
}

func (c *cli) run(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	// The end of ctx must become one SIGINT, which CommandContext cannot do.
	cmd := exec.Command(c.program, args...) //nolint:noctx
	cmd.Dir, cmd.Env = c.Dir, c.Env
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = lingerTime
	if err := c.runForwarding(ctx, cmd, c.Signals, c.Parent); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
			return 0, fmt.Errorf("run pulumi: %w", err)
		}
	}
	return exitCodeOf(cmd.ProcessState), nil
}
