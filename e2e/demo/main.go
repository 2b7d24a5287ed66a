// Command demo runs one deployment from a git repository, end to end, with the
// programs in bin/: it is what "make demo" calls. It starts a development
// server with its agent, serves a repository made of examples/yaml-stack over
// smart HTTP, creates a deployment through the public API, follows its log, and
// ends with the deployment's own success or failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/longshore-run/longshore/e2e/gitserver"
	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
)

const stack = restclient.Stack("default/yaml-stack/dev")

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

// run returns 0 when the deployment succeeded, 1 when it did not, 2 when the
// demo itself could not be set up.
func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "`directory` of the built programs")
	data := flags.String("data", ".longshore", "`directory` for everything the demo keeps")
	listen := flags.String("listen", "127.0.0.1:8480", "`address` of the server")
	keep := flags.Bool("keep", false, "leave the server up when the deployment has ended")
	image := flags.String("image", "pulumi/pulumi:latest", "`image` of the job, for the docker target")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{bin: *bin, listen: *listen, image: *image, keep: *keep}
	var err error
	if d.dir, err = filepath.Abs(*data); err == nil {
		err = os.MkdirAll(d.dir, 0o700)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 2
	}
	status, err := d.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 2
	}
	if status != api.StatusSucceeded {
		return 1
	}
	return 0
}

type demo struct {
	bin, dir, listen, image string
	keep                    bool
}

func (d *demo) run(ctx context.Context) (api.Status, error) {
	target, why := chooseTarget(ctx, d.image)
	say("target: %s (%s)", target, why)
	env, err := d.pulumi(ctx, target)
	if err != nil {
		return "", err
	}
	repository, closeGit, err := d.serveRepository(ctx)
	if err != nil {
		return "", err
	}
	defer closeGit()
	say("git repository: %s, branch main, served by git http-backend", repository)

	server, err := d.startServer(ctx, target, env)
	if err != nil {
		return "", err
	}
	defer d.stopServer(server)
	say("server: %s (its own output is in %s)", server.URL, server.Log)

	created, err := server.Create(ctx, stack, d.request(repository, target))
	if err != nil {
		return "", err
	}
	say("deployment %d of %s: %s", created.Version, stack, created.ID)
	fmt.Println()
	status, err := follow(ctx, server, created.ID)
	if err != nil {
		return "", err
	}
	if d.keep {
		d.leave(ctx, server, repository)
	}
	return status, nil
}

// chooseTarget takes docker when an engine answers and the image can be had.
func chooseTarget(ctx context.Context, image string) (target, why string) {
	err := imageAvailable(ctx, image)
	if err == nil {
		return "docker", "an engine answers and " + image + " can be had"
	}
	return "process", err.Error()
}

// pulumi says which pulumi the job will run, and returns the environment that
// makes the process target find it.
func (d *demo) pulumi(ctx context.Context, target string) ([]string, error) {
	if target == "docker" {
		say("pulumi: the one of the image %s", d.image)
		return nil, nil
	}
	if path, err := exec.LookPath("pulumi"); err == nil {
		say("pulumi: %s", path)
		return nil, nil
	}
	standin := filepath.Join(d.dir, "demo", "bin", "pulumi")
	if err := rig.BuildStandin(ctx, standin); err != nil {
		return nil, err
	}
	say("pulumi: there is none on the PATH, so a STAND-IN takes its place: a small program that prints what pulumi would and changes nothing")
	return []string{"PATH=" + filepath.Dir(standin) + string(os.PathListSeparator) + os.Getenv("PATH")}, nil
}

func (d *demo) serveRepository(ctx context.Context) (url string, closeServer func(), err error) {
	root := filepath.Join(d.dir, "demo", "git")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", nil, err
	}
	if _, err := gitserver.Publish(ctx, root, "yaml-stack.git", filepath.Join("examples", "yaml-stack")); err != nil {
		return "", nil, err
	}
	handler, err := gitserver.Handler(ctx, root, nil)
	if err != nil {
		return "", nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("serve the repository: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	return "http://" + listener.Addr().String() + "/yaml-stack.git", func() {
		_ = server.Close()
		<-served
	}, nil
}

func (d *demo) startServer(ctx context.Context, target string, env []string) (*rig.Server, error) {
	tokenFile := filepath.Join(d.dir, "user-token")
	args := []string{
		"dev", "--listen", d.listen, "--data-dir", d.dir, "--public-url", "http://" + d.listen,
		"--token-file", tokenFile, "--deploy-target", target,
	}
	if target == "docker" {
		args = append(args, "--docker-network", "host") // so that jobs reach the loopback servers of this demo
	}
	process, err := rig.Start(ctx, d.dir, "demo-server", filepath.Join(d.bin, "longshore-server"), args, env)
	if err != nil {
		return nil, err
	}
	s := &rig.Server{Process: process, Dir: d.dir}
	s.URL = "http://" + d.listen
	if err := rig.Ready(ctx, process, s.URL+"/readyz"); err != nil {
		d.stopServer(s)
		return nil, err
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		d.stopServer(s)
		return nil, err
	}
	s.Token = strings.TrimSpace(string(token))
	return s, nil
}

func (d *demo) stopServer(s *rig.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
}

// request is what a user would post: a repository, two pre-run commands that
// hand a variable on, a secret, and where Pulumi keeps its state.
func (d *demo) request(repository, target string) map[string]any {
	state := filepath.Join(d.dir, "demo", "state")
	if target == "docker" {
		state = "/tmp/pulumi-state" // in the job's container, gone with it
	}
	return map[string]any{
		"operation": "update",
		"sourceContext": map[string]any{
			"git": map[string]any{"repoUrl": repository, "branch": "main"},
		},
		"operationContext": map[string]any{
			"preRunCommands": []string{
				`mkdir -p ` + state + ` && echo "GREETED_AT=$(date -u +%H:%M)" >> "$PULUMI_ENV"`,
				`echo "greeted at $GREETED_AT UTC with the passphrase $PULUMI_CONFIG_PASSPHRASE"`,
			},
			"environmentVariables": map[string]any{
				"PULUMI_BACKEND_URL":       "file://" + state,
				"PULUMI_CONFIG_PASSPHRASE": map[string]string{"secret": "correct-horse-battery"},
				"PULUMI_SKIP_UPDATE_CHECK": "true",
			},
		},
		"executorContext": map[string]any{"executorImage": d.image},
	}
}

// follow prints the log as it grows, then every step with its state and time.
func follow(ctx context.Context, s *rig.Server, id string) (api.Status, error) {
	err := s.Follow(ctx, stack, id, func(l api.DeploymentLogLine) {
		if l.Header != "" {
			fmt.Printf("\033[1m=== %s\033[0m\n", l.Header)
			return
		}
		fmt.Print("    " + l.Line)
		if !strings.HasSuffix(l.Line, "\n") {
			fmt.Println()
		}
	})
	if err != nil {
		return "", err
	}
	ended, err := s.WaitEnd(ctx, stack, id)
	if err != nil {
		return "", err
	}
	fmt.Println()
	for _, job := range ended.Jobs {
		for _, step := range job.Steps {
			took := ""
			if step.Started != nil && step.LastUpdated != nil && step.Status != api.StepNotStarted {
				took = step.LastUpdated.Sub(*step.Started).Round(time.Millisecond).String()
			}
			fmt.Printf("  %-30s %-12s %s\n", step.Name, step.Status, took)
		}
	}
	fmt.Println()
	say("deployment %s", ended.Status)
	return ended.Status, nil
}

// leave keeps everything up until the user interrupts.
func (d *demo) leave(ctx context.Context, s *rig.Server, repository string) {
	fmt.Printf(`
The server stays up until you press Ctrl-C.

  URL          %s
  user token   %s
  pool token   %s
  repository   %s

Another deployment:

  curl -sS -H "Authorization: token $(cat %s)" -H 'Content-Type: application/json' \
    %s/api/stacks/%s/deployments \
    -d '{"operation":"preview","sourceContext":{"git":{"repoUrl":"%s","branch":"main"}},"operationContext":{"environmentVariables":{"PULUMI_BACKEND_URL":"file://%s","PULUMI_CONFIG_PASSPHRASE":{"secret":"correct-horse-battery"}}}}'
`, s.URL, filepath.Join(d.dir, "user-token"), filepath.Join(d.dir, "pool-token"), repository,
		filepath.Join(d.dir, "user-token"), s.URL, stack, repository, filepath.Join(d.dir, "demo", "state"))
	select {
	case <-ctx.Done():
	case <-s.Done():
		fmt.Fprintln(os.Stderr, "demo:", errors.New("the server ended:\n"+s.Tail()))
	}
}

func say(format string, args ...any) { fmt.Printf("demo: "+format+"\n", args...) }
