package faults_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

// engine is a Docker engine of the test's own, which may be stopped and killed.
// Its containers have the network of the host, and it has a bridge of its own
// that nobody uses: without any it would remove that of the host's engine.
type engine struct {
	t    *testing.T
	dir  string
	args []string
	now  *exec.Cmd
	done chan struct{} // closed once now has ended
}

func newEngine(t *testing.T, address string, args ...string) *engine {
	t.Helper()
	testkit.Need(t, "docker")
	testkit.Need(t, "root")
	testkit.Path(t, "ip")
	dockerd := testkit.Path(t, "dockerd")
	// A socket's path is short, and so is the name of a bridge.
	dir, err := os.MkdirTemp("", "lsd-")
	if err != nil {
		t.Fatal(err)
	}
	bridge := "lsd" + dir[len(dir)-8:]
	ip(t, "link", "add", "name", bridge, "type", "bridge")
	t.Cleanup(func() { ip(t, "link", "delete", bridge) })
	ip(t, "address", "add", address, "dev", bridge)
	e := &engine{t: t, dir: dir, args: append([]string{
		dockerd, "--host", "unix://" + dir + "/sock", "--data-root", dir + "/data", "--exec-root", dir + "/exec",
		"--pidfile", dir + "/pid", "--bridge", bridge, "--iptables=false", "--ip-masq=false", "--ip-forward=false",
		"--shutdown-timeout", "5",
	}, args...)}
	t.Cleanup(e.remove)
	e.start()
	return e
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil { //nolint:noctx // short
		t.Fatalf("ip %q: %v\n%s", args, err, out)
	}
}

func (e *engine) host() string { return "unix://" + filepath.Join(e.dir, "sock") }

// launch starts the daemon.
func (e *engine) launch() {
	e.t.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.now = exec.Command(e.args[0], e.args[1:]...) //nolint:noctx // stop ends it
	e.now.Stdout, e.now.Stderr = log, log
	if err := e.now.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.done = make(chan struct{})
	go func() {
		defer close(e.done)
		_ = e.now.Wait() // killed, mostly
	}()
}

// start starts the daemon and waits until it answers. One that gives up, as it
// does now and then after it was killed, is started again, as systemd does.
func (e *engine) start() {
	e.t.Helper()
	e.launch()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(e.dir, "sock"))
		},
	}}
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
		if err != nil {
			e.t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-e.done:
			e.launch()
		default:
		}
		if ctx.Err() != nil {
			e.t.Fatalf("the engine does not answer: %v\n%s", err, e.log())
		}
		pause(ctx)
	}
}

// stop ends the daemon by a signal and waits for it.
func (e *engine) stop(with syscall.Signal) {
	e.t.Helper()
	if err := e.now.Process.Signal(with); err != nil {
		e.t.Error(err)
	}
	<-e.done
}

func (e *engine) log() string {
	content, _ := os.ReadFile(filepath.Join(e.dir, "log"))
	return string(content[max(0, len(content)-4000):])
}

// remove ends the daemon with all of its containers, which live on where
// containers survive the daemon.
func (e *engine) remove() {
	select {
	case <-e.done:
	default:
		for _, id := range e.containers() {
			_ = exec.Command("docker", "--host", e.host(), "rm", "--force", id).Run() //nolint:noctx // short, and the test is over
		}
		e.stop(syscall.SIGTERM)
	}
	if e.t.Failed() {
		e.t.Logf("the engine said:\n%s", e.log())
	}
	mounts, _ := os.ReadFile("/proc/self/mounts") // a killed daemon leaves some
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, e.dir+"/") {
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Log(err)
	}
}

func (e *engine) containers() []string {
	out, err := exec.Command("docker", "--host", e.host(), "ps", "--all", "--quiet", "--no-trunc").Output() //nolint:noctx // short
	if err != nil {
		e.t.Errorf("docker ps: %v", err)
	}
	return strings.Fields(string(out))
}

// TestAnEngineThatRestarts: with live-restore, containers outlive their engine,
// and a restart harms no job. Without, the engine stops them all in order, which
// their deployments say; nothing is run again, and the next one runs.
func TestAnEngineThatRestarts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args   []string
		subnet string // of documentation addresses
		with   syscall.Signal
		lives  bool
	}{
		"live-restore, stopped": {subnet: "192.0.2.1/28", args: []string{"--live-restore"}, with: syscall.SIGTERM, lives: true},
		"live-restore, killed":  {subnet: "192.0.2.17/28", args: []string{"--live-restore"}, with: syscall.SIGKILL, lives: true},
		"stopped":               {subnet: "192.0.2.33/28", with: syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			busybox := testkit.Path(t, "busybox")
			e := newEngine(t, c.subnet, c.args...)
			e.load(busybox)
			s := newSite(t)
			s.agent("--deploy-target", "docker", "--docker-host", e.host(), "--docker-network", "host",
				"--pull-policy", "never", "--override-image", image, "--concurrency", "1")
			id := s.create(request(printing("1600", "200")))
			s.until(id, " line 0 ")
			e.stop(c.with)
			waiting := s.create(request(nil))
			if c.lives { // whatever the engine does
				s.until(id, " 1000 ....")
			}
			e.start()
			status, log := s.end(id)
			if c.lives {
				if status != api.StatusSucceeded || count(log, interrupted) != 0 {
					t.Errorf("status = %s, want succeeded without an interrupt\n%s", status, log)
				}
				whole(t, log, 1600)
			} else {
				// The agent adds who stopped it, unless the service's word that the
				// deployment has failed reaches it before the engine's that the
				// container has ended: then it looks like a cancel.
				if status != api.StatusFailed || count(log, interrupted) != 1 {
					t.Errorf("status = %s, want failed in order, after one interrupt\n%s", status, log)
				}
			}
			if status, log := s.end(waiting); status != api.StatusSucceeded {
				t.Errorf("the deployment that was created meanwhile is %s\n%s", status, log)
			}
			for ctx := s.bounded(); len(e.containers()) > 0; pause(ctx) {
				if ctx.Err() != nil {
					t.Errorf("left behind: %q", e.containers())
					return
				}
			}
		})
	}
}

// load makes the image of the jobs.
func (e *engine) load(busybox string) {
	e.t.Helper()
	if err := rig.ImportImage(e.t.Context(), image, busybox, programs.Standin, client.WithHost(e.host())); err != nil {
		e.t.Fatal(err)
	}
}
