// Package rig builds the programs, starts them as an operator would, and ends
// them by their process id. The demo, the end-to-end tests and the benchmarks
// stand on it.
package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/longshore-run/longshore/e2e/restclient"
)

// Programs are the paths of the built programs.
type Programs struct {
	Server, Agent, Executor, Bucket string
	// Standin behaves like the Pulumi CLI. Its file is called pulumi.
	Standin string
}

// In returns the programs of directory dir, where Build puts them.
func In(dir string) Programs {
	return Programs{
		Server:   filepath.Join(dir, "longshore-server"),
		Agent:    filepath.Join(dir, "longshore-agent"),
		Executor: filepath.Join(dir, "longshore-executor"),
		Bucket:   filepath.Join(dir, "longshore-bucket"),
		Standin:  filepath.Join(dir, "standin", "pulumi"),
	}
}

// Build builds all programs into dir.
func Build(ctx context.Context, dir string) (Programs, error) {
	p := In(dir)
	for path, pkg := range map[string]string{p.Server: "cmd/server", p.Agent: "cmd/agent", p.Executor: "cmd/executor", p.Bucket: "cmd/bucket"} {
		if err := build(ctx, path, pkg); err != nil {
			return Programs{}, err
		}
	}
	return p, BuildStandin(ctx, p.Standin)
}

// BuildStandin builds the stand-in for the Pulumi CLI alone.
func BuildStandin(ctx context.Context, path string) error { return build(ctx, path, "e2e/standin") }

func build(ctx context.Context, path, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/longshore-run/longshore/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Process is a started program. Its output goes to a file.
type Process struct {
	Name string
	Log  string // path of its output
	// Address is where an agent answers its probes.
	Address string

	cmd  *exec.Cmd
	done chan struct{}
	err  error
	once sync.Once
}

// Start starts a program with its output going to dir/name.log. The process
// does not end with ctx: end it with Stop or Kill.
func Start(ctx context.Context, dir, name, path string, args, env []string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	file, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer file.Close()
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), path, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the terminal is ours to pass on
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is the exit code once Done is closed.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Drain asks the process to end, once, and does not wait.
func (p *Process) Drain() {
	p.once.Do(func() { _ = p.cmd.Process.Signal(syscall.SIGTERM) })
}

// Stop asks the process to end and waits; it kills it when ctx ends first.
func (p *Process) Stop(ctx context.Context) error {
	p.Drain()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("stop %s: killed, it had not ended: %w", p.Name, context.Cause(ctx))
	}
}

// Kill kills the process at once and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Tail returns the end of the process's output, for messages.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// Server is a running longshore-server and its first user.
type Server struct {
	*Process
	restclient.Client
	Dir string
}

// StartServer starts "longshore-server serve" with everything it keeps below
// dir, and waits until it is ready. An empty listen picks a free port.
func StartServer(ctx context.Context, programs Programs, dir, listen string, args ...string) (*Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if listen == "" {
		var err error
		if listen, err = FreeAddress(ctx); err != nil {
			return nil, err
		}
	}
	tokenFile := filepath.Join(dir, "user-token")
	base := "http://" + listen
	all := append([]string{
		"serve", "--listen", listen, "--data-dir", filepath.Join(dir, "data"),
		"--public-url", base, "--organization", "default", "--token-file", tokenFile, "--executor-dir", filepath.Dir(programs.Executor),
	}, args...)
	process, err := Start(ctx, dir, "server", programs.Server, all, nil)
	if err != nil {
		return nil, err
	}
	s := &Server{Process: process, Client: restclient.Client{URL: base}, Dir: dir}
	if err := Ready(ctx, process, base+"/readyz"); err != nil {
		return nil, errors.Join(err, process.Stop(ctx))
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, errors.Join(err, process.Stop(ctx))
	}
	s.Token = strings.TrimSpace(string(token))
	return s, nil
}

// StartAgent starts "longshore-agent run" for a pool of the server.
func (s *Server) StartAgent(ctx context.Context, programs Programs, name, poolToken string, args, env []string) (*Process, error) {
	tokenFile := filepath.Join(s.Dir, name+"-token")
	if err := os.WriteFile(tokenFile, []byte(poolToken), 0o600); err != nil {
		return nil, err
	}
	port, err := FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	_, number, _ := net.SplitHostPort(port)
	all := append([]string{
		"run", "--service-url", s.URL, "--token-file", tokenFile, "--http-server-port", number,
		"--working-directory", filepath.Join(s.Dir, name),
	}, args...)
	process, err := Start(ctx, s.Dir, name, programs.Agent, all, env)
	if err != nil {
		return nil, err
	}
	process.Address = net.JoinHostPort("127.0.0.1", number)
	if err := Ready(ctx, process, "http://"+process.Address+"/healthz"); err != nil {
		return nil, errors.Join(err, process.Stop(ctx))
	}
	return process, nil
}

// FreeAddress returns a loopback address on which nothing listens.
func FreeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Ready waits until url answers 200, the process ends, or ctx does.
func Ready(ctx context.Context, p *Process, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended with exit code %d before it was ready:\n%s", p.Name, p.ExitCode(), p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, context.Cause(ctx), p.Tail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
