package docker_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/google/uuid"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/backendtest"
	"github.com/longshore-run/longshore/internal/backend/docker"
)

// wire stands between a backend and its engine, and fails as told.
type wire struct {
	listener net.Listener
	engine   string

	mu    sync.Mutex
	cut   bool // refuses new connections, after having closed all
	hang  bool // accepts connections and never answers
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

func newWire(t *testing.T) *wire {
	t.Helper()
	engine, ok := strings.CutPrefix(newEngine(t).DaemonHost(), "unix://")
	if !ok {
		t.Skip("needs an engine on a unix socket")
	}
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "d.sock"))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener, engine: engine, conns: map[net.Conn]bool{}}
	w.done.Go(w.accept)
	t.Cleanup(func() {
		listener.Close()
		w.set(true, false)
		w.done.Wait()
	})
	return w
}

func (w *wire) host() string { return "unix://" + w.listener.Addr().String() }

func (w *wire) accept() {
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.done.Go(func() { w.serve(conn) })
	}
}

func (w *wire) serve(conn net.Conn) {
	defer conn.Close()
	if !w.add(conn) {
		return
	}
	engine, err := net.Dial("unix", w.engine)
	if err != nil || !w.add(engine) {
		return
	}
	defer engine.Close()
	var copying sync.WaitGroup
	copying.Go(func() {
		_, _ = io.Copy(writerFunc(func(p []byte) (int, error) {
			if w.hangs() {
				return len(p), nil
			}
			return engine.Write(p)
		}), conn)
		_ = engine.(*net.UnixConn).CloseWrite()
	})
	_, _ = io.Copy(conn, engine)
	conn.Close()
	copying.Wait()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (w *wire) add(conn net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[conn] = true
	return !w.cut
}

func (w *wire) hangs() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hang
}

func (w *wire) set(cut, hang bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.hang = cut, hang
	if cut {
		for conn := range w.conns {
			conn.Close()
		}
		clear(w.conns)
	}
}

func TestAJobSurvivesTheEnginesAbsence(t *testing.T) {
	e := newEngine(t)
	w := newWire(t)
	h := e.harness(t, e.image(t, nil))
	spec := h.Spec("ready", "await-term", "count-terms 100ms", "report cancelled", "exit 12")
	b := newBackend(t, docker.Config{Host: w.host(), PullPolicy: docker.PullNever, Network: "none", ExecutorSource: e.source(t)})
	job, err := b.Start(t.Context(), spec, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = job.Remove(context.Background()) })
	waitFor(t, func() bool { _, ok := h.File(t, spec.Job.JobID, "ready"); return ok })

	type answer struct {
		exit backend.Exit
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		exit, err := job.Wait(t.Context())
		answers <- answer{exit, err}
	}()
	w.set(true, false)
	if err := b.Check(t.Context()); err == nil {
		t.Error("Check() = nil while the engine is away")
	}
	stopped := make(chan error, 1)
	go func() { stopped <- job.Stop(t.Context(), time.Minute) }()
	select {
	case a := <-answers:
		t.Fatalf("Wait() = %+v while the engine was away", a)
	case err := <-stopped:
		t.Fatalf("Stop() = %v while the engine was away", err)
	case <-time.After(500 * time.Millisecond):
	}
	w.set(false, false)
	if err := <-stopped; err != nil {
		t.Errorf("Stop() = %v", err)
	}
	if a := <-answers; a.err != nil || a.exit.Code != 12 || a.exit.Report == nil || a.exit.Report.Message != "terms=1" {
		t.Errorf("Wait() = %+v, want code 12 after one SIGTERM", a)
	}
}

func TestAnEngineThatHangsIsNotWaitedFor(t *testing.T) {
	w := newWire(t)
	b := newBackend(t, docker.Config{Host: w.host(), PullPolicy: docker.PullNever, ExecutorSource: noExecutor, CallTimeout: 300 * time.Millisecond})
	if err := b.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.set(false, true)
	began := time.Now()
	_, err := b.Start(t.Context(), backendtest.Harness{Image: api.DockerImage{Reference: "x"}}.Spec("hang"), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "does not answer") || time.Since(began) > 5*time.Second {
		t.Errorf("Start() = %v after %s, want the deadline of the call", err, time.Since(began))
	}
}

func TestCheckSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	nobody := filepath.Join(dir, "nobody.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: nobody, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	for name, test := range map[string]struct{ host, want string }{
		"no socket":        {"unix://" + dir + "/missing.sock", "does not exist: start the engine"},
		"nobody listens":   {"unix://" + nobody, "systemctl start docker"},
		"nobody at a port": {"tcp://127.0.0.1:1", "is the address right?"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, docker.Config{Host: test.host, ExecutorSource: noExecutor})
			if err := b.Check(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Check() = %v, want %q", err, test.want)
			}
		})
	}
	t.Run("a check that is canceled says by what", func(t *testing.T) {
		cause := errors.New("the agent stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		b := newBackend(t, docker.Config{ExecutorSource: noExecutor})
		if err := b.Check(ctx); !errors.Is(err, cause) {
			t.Errorf("Check() = %v, want %v", err, cause)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for name, config := range map[string]docker.Config{
		"no executor":            {},
		"an unknown policy":      {ExecutorSource: noExecutor, PullPolicy: "sometimes"},
		"unknown capabilities":   {ExecutorSource: noExecutor, Capabilities: "all"},
		"a host that is no host": {ExecutorSource: noExecutor, Host: "docker"},
		"ssh":                    {ExecutorSource: noExecutor, Host: "ssh://me@host"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := docker.New(config); err == nil {
				t.Error("New() = nil, want an error")
			}
		})
	}
}

func TestTheVolumeIsFilledOnce(t *testing.T) {
	e := newEngine(t)
	image := api.DockerImage{Reference: e.image(t, nil)}
	source := e.source(t)
	config := docker.Config{PullPolicy: docker.PullNever, Network: "none", ExecutorSource: source}
	path, _ := source(t.Context(), "")
	volume, err := docker.VolumeName(path)
	if err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, b backend.Backend) {
		t.Helper()
		w, err := b.Start(t.Context(), backendtest.Harness{Image: image}.Spec("report succeeded"), io.Discard)
		if err != nil {
			t.Errorf("Start() = %v", err)
			return
		}
		if exit, err := w.Wait(t.Context()); err != nil || exit.Code != 0 || exit.Report == nil {
			t.Errorf("Wait() = %+v, %v", exit, err)
		}
		if err := w.Remove(t.Context()); err != nil {
			t.Errorf("Remove() = %v", err)
		}
	}
	t.Run("by one of several agents that start at the same time", func(t *testing.T) {
		var agents sync.WaitGroup
		for range 4 {
			b := newBackend(t, config)
			agents.Go(func() { run(t, b) })
		}
		agents.Wait()
	})
	b := newBackend(t, config)
	run(t, b)
	t.Run("and again when somebody removed it meanwhile", func(t *testing.T) {
		if err := e.VolumeRemove(t.Context(), volume, true); err != nil {
			t.Fatal(err)
		}
		run(t, b)
	})
	t.Run("after another agent that fills it is done", func(t *testing.T) {
		if err := e.VolumeRemove(t.Context(), volume, true); err != nil {
			t.Fatal(err)
		}
		created, err := e.ContainerCreate(t.Context(), &container.Config{Image: image.Reference, Cmd: []string{"x"}},
			&container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: volume, Target: "/longshore/bin"}}}, nil, nil, volume)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			run(t, newBackend(t, config))
		}()
		select {
		case <-done:
			t.Error("a job started while another agent was filling the volume")
		case <-time.After(500 * time.Millisecond):
		}
		if err := e.ContainerRemove(t.Context(), created.ID, container.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		<-done
	})
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

// TestAMirrorThatIsGone: jobs see it, to read only; where it cannot be had, they
// start without.
func TestAMirrorThatIsGone(t *testing.T) {
	e := newEngine(t)
	there := t.TempDir()
	if err := os.WriteFile(filepath.Join(there, "entry"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := e.harness(t, e.image(t, nil))
	for name, c := range map[string]struct{ dir, sees string }{
		"there": {there, "exists=true"}, "gone": {filepath.Join(there, "no", "such"), "exists=false"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, docker.Config{PullPolicy: docker.PullNever, Network: "none", ExecutorSource: e.source(t), Owner: uuid.NewString(), MirrorDirectory: c.dir})
			spec := h.Spec("exists /longshore/mirror/entry", "report succeeded")
			w, err := b.Start(t.Context(), spec, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = w.Remove(context.WithoutCancel(t.Context())) }()
			exit, err := w.Wait(t.Context())
			if err != nil || exit.Report == nil || !strings.Contains(exit.Report.Message, c.sees) {
				t.Errorf("Wait() = %+v, %v, want it to say %s", exit, err, c.sees)
			}
			mounts := e.inspect(t, spec.Job.JobID).Mounts
			for _, m := range mounts {
				if m.Destination == "/longshore/mirror" && m.RW {
					t.Error("the mirror can be written to")
				}
			}
		})
	}
}
