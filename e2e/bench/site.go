package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
)

// site is one server and one agent, idle.
type site struct {
	*rig.Server
	agent  *rig.Process
	docker *client.Client // nil for the process target
	image  string
	dir    string

	programs  rig.Programs
	poolToken string
	args, env []string // of the agent
}

func (b *bench) site(ctx context.Context, name, target string, args ...string) (*site, error) {
	dir := filepath.Join(b.dir, name)
	server, err := rig.StartServer(ctx, b.programs, dir, "")
	if err != nil {
		return nil, err
	}
	s := &site{Server: server, dir: dir, image: b.image}
	pool, err := server.CreatePool(ctx, "default", "bench")
	if err != nil {
		return s, s.close(err)
	}
	env := []string{"PATH=" + filepath.Dir(b.programs.Standin) + ":" + os.Getenv("PATH")}
	args = append([]string{"--deploy-target", target, "--concurrency", "1"}, args...)
	if target == "docker" {
		args = append(args, "--docker-network", "host", "--pull-policy", "never")
		if s.docker, err = client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation()); err != nil {
			return s, s.close(err)
		}
	} else {
		s.image = "unused"
	}
	s.programs, s.poolToken, s.args, s.env = b.programs, pool.TokenValue, args, env
	if err := s.restart(ctx); err != nil {
		return s, s.close(err)
	}
	return s, nil
}

// restart starts the agent, which is not running, in the directory it had
// before.
func (s *site) restart(ctx context.Context) (err error) {
	s.agent, err = s.StartAgent(ctx, s.programs, "agent", s.poolToken, s.args, s.env)
	return err
}

// close ends everything and returns err.
func (s *site) close(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if s.agent != nil {
		s.agent.Drain()
	}
	_ = s.Stop(ctx) // answers the poll that the agent waits for
	if s.agent != nil {
		_ = s.agent.Stop(ctx)
	}
	if s.docker != nil {
		s.docker.Close()
	}
	return err
}

const stack = restclient.Stack("default/bench/dev")

// noop is a deployment whose operation does nothing.
func (s *site) noop(variables map[string]any) map[string]any {
	env := map[string]any{"PULUMI_BACKEND_URL": "https://api.pulumi.com", "PULUMI_STANDIN_DURATION": "0s"}
	for name, value := range variables {
		env[name] = value
	}
	return map[string]any{
		"operation":       "update",
		"executorContext": map[string]any{"executorImage": s.image},
		"operationContext": map[string]any{
			"environmentVariables": env,
			"preRunCommands":       []string{`printf 'name: bench\nruntime: yaml\n' > Pulumi.yaml`},
			"options":              map[string]any{"skipInstallDependencies": true},
		},
	}
}

// deploy runs one deployment to its end and until nothing of it is left.
func (s *site) deploy(ctx context.Context, request any) (api.GetDeploymentResponse, error) {
	created, err := s.Create(ctx, stack, request)
	if err != nil {
		return api.GetDeploymentResponse{}, err
	}
	d, err := s.WaitEnd(ctx, stack, created.ID)
	if err != nil {
		return d, err
	}
	if d.Status != api.StatusSucceeded {
		lines, _, _ := s.Logs(ctx, stack, created.ID, "")
		return d, fmt.Errorf("deployment %s: %s: %v", created.ID, d.Status, lines)
	}
	return d, s.settle(ctx, created.ID)
}

// settle waits until the workload of a deployment is gone.
func (s *site) settle(ctx context.Context, id string) error {
	for {
		left, err := s.left(ctx, id)
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (s *site) left(ctx context.Context, id string) (int, error) {
	if s.docker == nil {
		entries, err := os.ReadDir(filepath.Join(s.dir, "agent", "jobs"))
		if os.IsNotExist(err) {
			return 0, nil
		}
		return len(entries), err
	}
	list, err := s.docker.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", "run.longshore.deployment="+id)),
	})
	return len(list), err
}

// firstInstruction returns how long it took from the creation of a deployment
// to the executor's first report, by the server's clock. The report is an HTTP
// call that follows the executor's first instruction, so this overstates it.
func firstInstruction(d api.GetDeploymentResponse) (time.Duration, error) {
	if len(d.Jobs) == 0 || len(d.Jobs[0].Steps) == 0 || d.Jobs[0].Steps[0].LastUpdated == nil {
		return 0, fmt.Errorf("deployment %s has no step times", d.ID)
	}
	return d.Jobs[0].Steps[0].LastUpdated.Sub(d.Created), nil
}
