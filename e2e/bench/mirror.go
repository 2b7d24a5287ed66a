package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/longshore-run/longshore/e2e/gitserver"
	"github.com/longshore-run/longshore/internal/mirror"
)

// fillMirror makes a mirror in root with what one checkout leaves, and returns the
// environment of those that use it. What they leave is not taken.
func fillMirror(ctx context.Context, root, dir string, get func(env []string) []string) (env []string, err error) {
	store, err := mirror.Open(root, 1<<30)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	kept := root + "-kept"
	env = []string{"LONGSHORE_KEPT=" + kept, "LONGSHORE_SOURCE_MIRROR=" + store.Dir(), fmt.Sprintf("LONGSHORE_SOURCE_MIRROR_LIMIT=%d", store.Limit())}
	args := get(env)
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("fill the mirror: %w: %s", err, out)
	}
	taken, err := store.Take(kept)
	if err == nil && taken.Added != 1 {
		err = fmt.Errorf("fill the mirror: %+v", taken)
	}
	if err != nil {
		return nil, err
	}
	return env, os.RemoveAll(dir)
}

// onlyFiles returns a command that does of a checkout what is left when there is
// nothing to fetch: it makes dir a repository with a pack that lies ready, and
// writes the files.
func onlyFiles(ctx context.Context, root, bare, dir string) ([]string, error) {
	ready := filepath.Join(root, "ready")
	if _, err := gitserver.Git(ctx, "clone", "--quiet", "--bare", "--depth", "1", "--branch", "main", "file://"+bare, ready); err != nil {
		return nil, err
	}
	script := strings.NewReplacer("READY", ready, "DIR", dir).Replace(`git init -q DIR && cp READY/objects/pack/* DIR/.git/objects/pack/ &&
cp READY/shallow DIR/.git/ && cd DIR && git -c checkout.workers=0 read-tree --reset -u "$(git -C READY rev-parse main)"`)
	return []string{"sh", "-c", script}, nil
}

// link is what a network takes: so many bytes a second for all connections
// together, and a wait before each request.
type link struct {
	perSecond float64
	wait      time.Duration

	mu   sync.Mutex
	free time.Time // when the next byte may go
}

// overLink serves h over a link of 100 Mbit/s and 20 ms.
func overLink(h http.Handler) (*httptest.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := httptest.NewUnstartedServer(h)
	_ = server.Listener.Close()
	server.Listener = linkListener{listener, &link{perSecond: 100e6 / 8, wait: 20 * time.Millisecond}}
	server.Start()
	return server, nil
}

type linkListener struct {
	net.Listener
	link *link
}

func (l linkListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return linkConn{conn, l.link}, nil
}

type linkConn struct {
	net.Conn
	link *link
}

func (c linkConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		time.Sleep(c.link.wait)
	}
	return n, err
}

func (c linkConn) Write(p []byte) (sent int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), 16<<10)]
		time.Sleep(c.link.reserve(len(part)))
		var n int
		n, err = c.Conn.Write(part)
		sent, p = sent+n, p[n:]
	}
	return sent, err
}

// reserve returns how long to wait for n bytes to have room.
func (l *link) reserve(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.perSecond * float64(time.Second)))
	return l.free.Sub(now)
}
