package gitsrc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/gitsrc"
	"github.com/longshore-run/longshore/internal/testkit"
)

// origin is a real repository with a few commits, made with git.
type origin struct {
	dir   string // the bare repository
	work  string
	first string // the first commit of main: no branch or tag points to it
	main  string // the tip of main
	dev   string // the tip of feature/dev
	pull  string // refs/pull/7/head and refs/merge-requests/7/head
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	testkit.Need(t, "git")
	base := t.TempDir()
	o := &origin{dir: filepath.Join(base, "repo.git"), work: filepath.Join(base, "work")}
	o.git(t, base, "init", "-q", "--bare", "-b", "main", o.dir)
	o.git(t, base, "init", "-q", "-b", "main", o.work)
	write(t, o.work, "README.md", "first\n")
	o.git(t, o.work, "add", ".")
	o.git(t, o.work, "commit", "-qm", "First")
	o.first = o.git(t, o.work, "rev-parse", "HEAD")
	write(t, o.work, "README.md", "second\n")
	write(t, o.work, "infra/prod/Pulumi.yaml", "name: prod\nruntime: yaml\n")
	write(t, o.work, "run.sh", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(o.work, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"outside": "/etc", "up": "../..", "inside": "infra/prod", "dangling": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(o.work, name)); err != nil {
			t.Fatal(err)
		}
	}
	o.git(t, o.work, "add", ".")
	o.git(t, o.work, "commit", "-qm", "Second, with a project\n\nand a body")
	o.main = o.git(t, o.work, "rev-parse", "HEAD")
	o.git(t, o.work, "tag", "-a", "-m", "One", "v1")
	o.git(t, o.work, "tag", "light", o.main)
	o.git(t, o.work, "checkout", "-qb", "feature/dev")
	write(t, o.work, "dev.txt", "dev\n")
	o.git(t, o.work, "add", ".")
	o.git(t, o.work, "commit", "-qm", "Develop")
	o.dev = o.git(t, o.work, "rev-parse", "HEAD")
	o.git(t, o.work, "push", "-q", o.dir, "--all")
	o.git(t, o.work, "push", "-q", o.dir, "--tags")
	o.pull = o.git(t, o.work, "commit-tree", "-p", o.main, "-m", "Asked to be pulled", o.dev+"^{tree}")
	o.git(t, o.work, "push", "-q", o.dir, o.pull+":refs/pull/7/head", o.pull+":refs/merge-requests/7/head")
	return o
}

func (o *origin) git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ann Author", "GIT_AUTHOR_EMAIL=ann@example.com", "GIT_COMMITTER_NAME=Ann Author", "GIT_COMMITTER_EMAIL=ann@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// backend serves o over git's smart HTTP protocol.
func (o *origin) backend() http.Handler {
	return &cgi.Handler{
		Path: "/usr/bin/git", Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(o.dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent"},
	}
}

// old makes a server of h that knows only the first version of git's protocol.
func old(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Git-Protocol")
		h.ServeHTTP(w, r)
	})
}

// asksForPack reports whether r is the request for a pack, in either version.
func asksForPack(r *http.Request) bool {
	if !strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
		return false
	}
	return strings.Contains(peekBody(r), "want ")
}

// peekBody reads the body of r and leaves it to be read again.
func peekBody(r *http.Request) string {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return string(body)
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// basic lets only one user in.
func basic(username, password string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		switch {
		case !ok || p != password:
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "remote: Invalid username or password "+p, http.StatusUnauthorized)
		case u != username:
			http.Error(w, "remote: wrong user "+u, http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// bearer wants the token as a bearer token.
func bearer(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.Header().Set("WWW-Authenticate", `Bearer realm="git"`)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// sshServer is a real sshd with its own configuration, port and host key.
type sshServer struct {
	url        string // of the repository
	knownHosts string // a file with its host key
	log        *lockedBuffer
}

func newSSHServer(t *testing.T, o *origin, authorized string, more ...string) *sshServer {
	t.Helper()
	sshd := testkit.Path(t, "sshd")
	testkit.Need(t, "ssh-keygen")
	dir := t.TempDir()
	keygen(t, filepath.Join(dir, "host"), "ed25519", "")
	write(t, dir, "authorized", authorized)
	port := freePort(t)
	write(t, dir, "sshd_config", fmt.Sprintf(`ListenAddress 127.0.0.1:%d
HostKey %s/host
AuthorizedKeysFile %s/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
%s
`, port, dir, dir, strings.Join(more, "\n")))
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where sshd as root locks itself in
			t.Fatal(err)
		}
	}
	server := &sshServer{log: &lockedBuffer{}}
	cmd := exec.CommandContext(context.Background(), sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	cmd.Stderr = server.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	waitFor(t, address, server.log)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	server.url = fmt.Sprintf("ssh://%s@%s%s", me.Username, address, o.dir)
	public, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	server.knownHosts = filepath.Join(dir, "known_hosts")
	write(t, dir, "known_hosts", fmt.Sprintf("[127.0.0.1]:%d %s", port, public))
	return server
}

// newDaemon starts a real git daemon and returns the repository's URL.
func newDaemon(t *testing.T, o *origin) string {
	t.Helper()
	port := freePort(t)
	log := &lockedBuffer{}
	cmd := exec.CommandContext(context.Background(), "git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", fmt.Sprintf("--port=%d", port), "--base-path="+filepath.Dir(o.dir))
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // git stops its child by it
		_ = cmd.Wait()
	})
	waitFor(t, fmt.Sprintf("127.0.0.1:%d", port), log)
	return fmt.Sprintf("git://127.0.0.1:%d/repo.git", port)
}

func waitFor(t *testing.T, address string, log *lockedBuffer) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
		<-tick.C
	}
	t.Fatalf("nobody listens at %s: %s", address, log.String())
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func keygen(t *testing.T, path, kind, passphrase string, more ...string) (private []byte, public string) {
	t.Helper()
	args := append([]string{"-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", path}, more...)
	if out, err := exec.CommandContext(context.Background(), "ssh-keygen", args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	private, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return private, string(pub)
}

// engine is one of those that every test of this package is run with.
type engine struct{ gitsrc.Engine }

func eachEngine(t *testing.T, test func(t *testing.T, on engine)) {
	t.Helper()
	t.Parallel()
	for _, e := range []gitsrc.Engine{gitsrc.EngineGit, gitsrc.EngineGoGit} {
		t.Run(string(e), func(t *testing.T) {
			t.Parallel()
			test(t, engine{e})
		})
	}
}

// checkout runs a checkout with short waits into a new directory.
func (on engine) checkout(t *testing.T, r gitsrc.Request) (gitsrc.Result, string, error) {
	t.Helper()
	if r.Dir == "" {
		r.Dir = filepath.Join(t.TempDir(), "src")
	}
	if r.KnownHosts == nil {
		r.KnownHosts = []string{filepath.Join(t.TempDir(), "none")}
	}
	r.Engine = on.Engine
	var lines lockedBuffer
	r.Progress = &lines
	result, err := gitsrc.CheckoutWith(t.Context(), r, 20*time.Second, time.Millisecond)
	return result, lines.String(), err
}

// lockedBuffer is a buffer that several goroutines may use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
