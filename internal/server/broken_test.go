package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/server"
)

// broken is a control plane in which something is wrong.
type broken struct {
	server.Service
	fail func() error
}

func (b broken) Authenticate(context.Context, string) (control.Principal, error) {
	return control.Principal{Kind: control.KindUser, Organization: "default"}, nil
}

func (b broken) Pools(context.Context, string) (api.ListAgentPoolsResponse, error) {
	return api.ListAgentPoolsResponse{}, b.fail()
}

// TestFaultsShowNothing: what went wrong inside is for the log; the caller gets
// the id to find it there.
func TestFaultsShowNothing(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"an error": func() error { return errors.New("disk /var/sesame is full") },
		"a panic":  func() error { panic("sesame") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			core, logs := observer.New(zapcore.InfoLevel)
			web := httptest.NewServer(server.New(server.Options{Service: broken{fail: fail}, Log: zap.New(core)}))
			defer web.Close()
			s := &site{url: web.URL}
			got := s.want(t, 500, "GET", "/api/orgs/default/agent-pools", "lsu-x", "", "X-Request-Id: find-me")
			if message := got.message(t); message != "internal error find-me" {
				t.Errorf("message %q, want only the id of the request", message)
			}
			entries := logs.All()
			if len(entries) != 1 || entries[0].ContextMap()["request_id"] != "find-me" {
				t.Fatalf("log %v, want one entry with the id", entries)
			}
		})
	}
}

// TestADatabaseThatCannotBeUsed is a 503 that says why, on calls and on /readyz,
// and one line of the log.
func TestADatabaseThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.InfoLevel)
	unavailable := fmt.Errorf("list pools: %w", &control.UnavailableError{Reason: "its disk is full", Err: errors.New("INSERT INTO sesame: disk I/O error")})
	web := httptest.NewServer(server.New(server.Options{
		Service: broken{fail: func() error { return unavailable }}, Log: zap.New(core),
		Ready: func(context.Context) error { return unavailable },
	}))
	defer web.Close()
	s := &site{url: web.URL}
	for range 3 {
		got := s.want(t, 503, "GET", "/api/orgs/default/agent-pools", "lsu-x", "")
		if message := got.message(t); !strings.Contains(message, "its disk is full; try again") || strings.Contains(message, "sesame") {
			t.Errorf("message %q, want the reason and no SQL", message)
		}
		if got.header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q, want 2", got.header.Get("Retry-After"))
		}
	}
	if text := string(s.want(t, 503, "GET", "/readyz", "", "").body); !strings.Contains(text, "the database cannot be used: its disk is full") || strings.Contains(text, "sesame") {
		t.Errorf("/readyz says %s, want the reason and no SQL", text)
	}
	if n := logs.Len(); n != 1 {
		t.Errorf("%d log entries, want one: %v", n, logs.All())
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(server.New(server.Options{
		Service: broken{}, Ready: func(context.Context) error { return errors.New("database /var/sesame is gone") },
	}))
	defer web.Close()
	s := &site{url: web.URL}
	got := s.want(t, 503, "GET", "/readyz", "", "")
	if text := string(got.body); !strings.Contains(text, "the database does not answer") || strings.Contains(text, "sesame") {
		t.Errorf("body %s, want the reason without paths", text)
	}
	s.want(t, 200, "GET", "/healthz", "", "")
}

func TestExecutorDownload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	web := httptest.NewServer(server.New(server.Options{Service: broken{}, Executors: server.NewExecutors("", filepath.Join(dir, "missing"), dir)}))
	defer web.Close()
	s := &site{url: web.URL}
	inflate := func(r reply) string {
		t.Helper()
		z, err := gzip.NewReader(bytes.NewReader(r.body))
		check(t, err)
		text, err := io.ReadAll(z)
		check(t, err)
		return string(text)
	}
	if message := s.want(t, 404, "GET", "/api/deployments/executor?arch=arm64", "lsu-x", "").message(t); !strings.Contains(message, "longshore-executor-linux-arm64") {
		t.Errorf("message %q, want it to name the file that is missing", message)
	}

	named := filepath.Join(dir, "longshore-executor-linux-arm64")
	check(t, os.WriteFile(named, []byte("first"), 0o755))
	got := s.want(t, 200, "GET", "/api/deployments/executor?arch=arm64", "lsu-x", "")
	if inflate(got) != "first" || got.header.Get("Content-Type") != "application/gzip" || got.header.Get("Content-Encoding") != "" {
		t.Errorf("executor %q with %v, want gzip as the content itself", inflate(got), got.header)
	}
	s.want(t, 304, "GET", "/api/deployments/executor?arch=arm64", "lsu-x", "", "If-None-Match: "+got.header.Get("ETag"))
	part := s.want(t, 206, "GET", "/api/deployments/executor?arch=arm64", "lsu-x", "", "Range: bytes=2-5")
	if !bytes.Equal(part.body, got.body[2:6]) {
		t.Errorf("bytes 2 to 5 are %x, want %x", part.body, got.body[2:6])
	}
	check(t, os.WriteFile(named, []byte("the second"), 0o755))
	if text := inflate(s.want(t, 200, "GET", "/api/deployments/executor?arch=arm64", "lsu-x", "")); text != "the second" {
		t.Errorf("executor %q after the file changed, want the new one", text)
	}

	// Without an architecture in its name only the program itself can tell.
	plain := filepath.Join(dir, "longshore-executor")
	check(t, os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o755))
	s.want(t, 404, "GET", "/api/deployments/executor", "lsu-x", "")
	check(t, os.Remove(plain))
	source := filepath.Join(t.TempDir(), "main.go")
	check(t, os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644))
	build := exec.CommandContext(t.Context(), "go", "build", "-o", plain, source)
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	program, err := os.ReadFile(plain)
	check(t, err)
	if inflate(s.want(t, 200, "GET", "/api/deployments/executor", "lsu-x", "")) != string(program) {
		t.Error("the executor for amd64, which is the default, is not the file beside the server")
	}
}
