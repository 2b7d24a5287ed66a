// Package gitserver makes real git repositories and serves them over smart
// HTTP, by git's own http-backend. The demo, the end-to-end tests and the
// benchmarks clone from it; no program of Longshore contains it.
package gitserver

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/http/cgi" //nolint:gosec // the handler runs git, for tests; httpoxy needs a Proxy header, which is dropped below
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Handler serves every repository below root, read-only: root/app.git is
// cloned from /app.git. With a check, requests need basic authentication.
func Handler(ctx context.Context, root string, check func(user, password string) bool) (http.Handler, error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("serve git repositories: %w; install git", err)
	}
	out, err := exec.CommandContext(ctx, git, "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("serve git repositories: git --exec-path: %w", err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Root: "/",
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=3", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "GIT_CONFIG_KEY_1=uploadpack.allowReachableSHA1InWant", "GIT_CONFIG_VALUE_1=true", "GIT_CONFIG_KEY_2=uploadpack.allowFilter", "GIT_CONFIG_VALUE_2=true"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if check != nil {
			user, password, ok := r.BasicAuth()
			if !ok || !check(user, password) {
				w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
				http.Error(w, "authentication required", http.StatusUnauthorized)
				return
			}
		}
		r.Header.Del("Proxy")
		backend.ServeHTTP(w, r)
	}), nil
}

// BasicAuth returns a check that knows one user. An empty user accepts any name,
// as hosts do that take an access token for the password.
func BasicAuth(user, password string) func(string, string) bool {
	return func(u, p string) bool {
		return (user == "" || subtle.ConstantTimeCompare([]byte(u), []byte(user)) == 1) &&
			subtle.ConstantTimeCompare([]byte(p), []byte(password)) == 1
	}
}

// Publish makes the bare repository root/name with one commit on branch main
// that holds what is in the folder source, and returns the commit.
func Publish(ctx context.Context, root, name, source string) (commit string, err error) {
	bare := filepath.Join(root, name)
	if err := os.RemoveAll(bare); err != nil {
		return "", fmt.Errorf("publish %s: %w", name, err)
	}
	work, err := os.MkdirTemp("", "longshore-publish-")
	if err != nil {
		return "", fmt.Errorf("publish %s: %w", name, err)
	}
	defer os.RemoveAll(work)
	if err := os.CopyFS(filepath.Join(work, "tree"), os.DirFS(source)); err != nil {
		return "", fmt.Errorf("publish %s: %w", name, err)
	}
	tree := filepath.Join(work, "tree")
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main", tree},
		{"-C", tree, "add", "--all"},
		{"-C", tree, "commit", "--quiet", "--message", "Add " + strings.TrimSuffix(name, ".git")},
		{"clone", "--quiet", "--bare", tree, bare},
	} {
		if _, err := Git(ctx, args...); err != nil {
			return "", fmt.Errorf("publish %s: %w", name, err)
		}
	}
	return Git(ctx, "-C", bare, "rev-parse", "main")
}

// Git runs git with an identity of its own and none of the user's configuration,
// and returns what it printed, trimmed.
func Git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Longshore", "GIT_AUTHOR_EMAIL=longshore@example.com",
		"GIT_COMMITTER_NAME=Longshore", "GIT_COMMITTER_EMAIL=longshore@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}
