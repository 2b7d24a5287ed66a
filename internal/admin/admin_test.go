package admin_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// operated is an agent that does as it is told.
type operated struct {
	mu     sync.Mutex
	status admin.Status
}

func (o *operated) Status() admin.Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status
}

func (o *operated) Drain()  { o.enter("draining") }
func (o *operated) Cancel() { o.enter("cancelling") }

func (o *operated) enter(state string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status.State = state
}

// serve starts a server for a in directory; stop ends it.
func serve(t *testing.T, directory string, a admin.Agent) (stop func()) {
	t.Helper()
	server, err := admin.Listen(t.Context(), directory, a)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v", err)
		}
	})
}

func TestAnOperatorAndAnAgent(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := admin.Status{
		State: "running", PID: 42, Version: "v1", Slots: 3, Busy: 1, Reasons: []string{"target: no engine"},
		Jobs: []admin.Job{{JobID: "j", DeploymentID: "d", Since: since}}, Until: &since,
	}
	dir := t.TempDir()
	stop := serve(t, dir, &operated{status: want})
	defer stop()
	if info, err := os.Stat(admin.SocketPath(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has %v (%v), want mode 0600", info.Mode(), err)
	}
	c := admin.NewClient(dir)
	got, err := c.Status(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Status() = %v, differs (-want +got):\n%s", err, diff)
	}
	for range 2 {
		if got, err := c.Drain(t.Context()); err != nil || got.State != "draining" {
			t.Errorf("Drain() = %v, %v, want draining", got, err)
		}
	}
	if got, err := c.Cancel(t.Context()); err != nil || got.State != "cancelling" {
		t.Errorf("Cancel() = %v, %v, want cancelling", got, err)
	}
	stop()
	if _, err := os.Lstat(admin.SocketPath(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is there after the end: %v", err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, admin.ErrNoAgent) || !strings.Contains(err.Error(), "--working-directory") {
		t.Errorf("Status() = %v, want ErrNoAgent and what to do", err)
	}
}

func TestWhatIsInTheSocketsPlace(t *testing.T) {
	t.Parallel()
	t.Run("a socket that an agent left behind is replaced", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		left, err := net.ListenUnix("unix", &net.UnixAddr{Name: admin.SocketPath(dir), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		left.SetUnlinkOnClose(false)
		left.Close()
		serve(t, dir, &operated{})()
	})
	t.Run("the socket of a living agent is not", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		defer serve(t, dir, &operated{status: admin.Status{PID: 4711}})()
		_, err := admin.Listen(t.Context(), dir, &operated{})
		if !errors.Is(err, admin.ErrTaken) || !strings.Contains(err.Error(), "process 4711") {
			t.Errorf("Listen() = %v, want ErrTaken and the process", err)
		}
		if _, err := admin.NewClient(dir).Status(t.Context()); err != nil {
			t.Errorf("the first agent does not answer any more: %v", err)
		}
	})
	t.Run("a file is left alone", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.WriteFile(admin.SocketPath(dir), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Listen(t.Context(), dir, &operated{}); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Errorf("Listen() = %v, want that a file is in the way", err)
		}
		if text, _ := os.ReadFile(admin.SocketPath(dir)); string(text) != "mine" {
			t.Errorf("the file holds %q", text)
		}
	})
	t.Run("a path that is too long has an error of its own", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Listen(t.Context(), dir, &operated{}); !errors.Is(err, admin.ErrTooLong) {
			t.Errorf("Listen() = %v, want ErrTooLong", err)
		}
	})
	t.Run("somebody else who answers is said to be", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		other, err := net.Listen("unix", admin.SocketPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Listener.Close()
		server.Listener = other
		server.Start()
		defer server.Close()
		_, err = admin.NewClient(dir).Status(t.Context())
		if err == nil || errors.Is(err, admin.ErrNoAgent) {
			t.Errorf("Status() = %v, want an error of its own", err)
		}
	})
}
