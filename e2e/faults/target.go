package faults

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/longshore-run/longshore/e2e/rig"
)

// target is the place where the jobs of a run live, seen from outside.
type target interface {
	// flags and environment are those of an agent whose jobs live there.
	flags() []string
	environment() []string
	// executors are those that are alive.
	executors(ctx context.Context) ([]found, error)
	// kill kills one of them, and only it.
	kill(ctx context.Context, executor found) error
	// left is what there is of jobs, which is nothing once all have ended.
	left(ctx context.Context) ([]string, error)
}

// engine is the target whose jobs are containers. They share the network of the
// host, where the proxy and the record are.
type engine struct{ pool string } // its id, which no other run has

const engineImage = "longshore-torture-job:latest"

// newEngine makes the image of the jobs.
func newEngine(ctx context.Context, pool, standin string) (engine, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return engine{}, fmt.Errorf("the image of the jobs is made from the static busybox of the package busybox-static: %w", err)
	}
	return engine{pool}, rig.ImportImage(ctx, engineImage, busybox, standin)
}

func (e engine) flags() []string {
	return []string{"--deploy-target", "docker", "--docker-network", "host", "--pull-policy", "never", "--override-image", engineImage, "--runner-pool-id", e.pool}
}

func (e engine) environment() []string { return nil }

func (e engine) executors(ctx context.Context) ([]found, error) {
	var all []found
	ids, err := e.containers(ctx)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	// A container that goes meanwhile is an error of inspect, and still all
	// others are printed.
	out, err := exec.CommandContext(ctx, "docker", append([]string{
		"inspect", "--format",
		`{{if .State.Running}}{{.Id}} {{index .Config.Labels "run.longshore.job"}}{{end}}`,
	}, ids...)...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		if id, job, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			all = append(all, found{container: id, job: job, executor: true})
		}
	}
	return all, nil
}

func (e engine) kill(ctx context.Context, executor found) error {
	return exec.CommandContext(ctx, "docker", "kill", executor.container).Run()
}

func (e engine) left(ctx context.Context) (left []string, err error) {
	ids, err := e.containers(ctx)
	for _, id := range ids {
		left = append(left, "container "+id)
	}
	return left, err
}

func (e engine) containers(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=run.longshore.pool="+e.pool).Output()
	if err != nil {
		return nil, fmt.Errorf("docker ps: %w", err)
	}
	return strings.Fields(string(out)), nil
}

// killExecutor kills one of the executors that are alive, and only it.
func (t *torture) killExecutor(ctx context.Context, which int) (name string) {
	executors, err := t.target.executors(ctx)
	if err != nil || len(executors) == 0 {
		return ""
	}
	victim := executors[which%len(executors)]
	t.mu.Lock()
	t.killed[victim.job] = true // first: whoever looks must not find it dead and not noted
	t.mu.Unlock()
	if t.target.kill(ctx, victim) != nil {
		return ""
	}
	return "executor of job " + victim.job
}
