package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/longshore-run/longshore/internal/testkit"
)

// TestCache saves an entry and gets it back with nothing but curl, from the
// folder that is the default and from a server of others that speaks S3.
func TestCache(t *testing.T) {
	t.Parallel()
	curl := testkit.Path(t, "curl")
	file := filepath.Join(t.TempDir(), "file")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	check(t, os.WriteFile(file, content, 0o600))
	for name, args := range map[string]func(t *testing.T, dir string) ([]string, []string){
		"folder": func(*testing.T, string) ([]string, []string) { return nil, nil },
		"S3": func(t *testing.T, _ string) ([]string, []string) {
			s3 := testkit.StartS3(t)
			bin := t.TempDir()
			if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/longshore-bucket", "../bucket").CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, out)
			}
			environ := []string{"PATH=" + bin}
			for name, value := range s3.Environ() {
				environ = append(environ, name+"="+value)
			}
			return []string{"--cache-url", s3.URL}, environ
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			args, environ := args(t, dir)
			p := startWith(t, os.Args[0], environ, append([]string{"serve", "--data-dir", dir, "--cache-max-entry=8MiB"}, args...)...)
			user := strings.TrimPrefix(p.lines[0], userMessage)
			p.ask(t.Context(), "POST", shopPath, user, createBody)
			url := func(method, key, prefix string) string {
				t.Helper()
				a := p.ask(t.Context(), "POST", shopPath+"/cache/url", user, fmt.Sprintf(`{"method":%q,"key":%q,"prefix":%q}`, method, key, prefix))
				if a.code != http.StatusOK {
					t.Fatalf("%s of %s = %d %s %v", method, key, a.code, a.text, a.err)
				}
				return field(a, "url")
			}
			run := func(args ...string) []byte {
				t.Helper()
				out, err := exec.CommandContext(t.Context(), curl, append([]string{"--fail", "--silent", "--show-error"}, args...)...).Output()
				if err != nil {
					t.Fatalf("curl %q: %v\n%s", args, err, &p.stderr)
				}
				return out
			}
			run("--upload-file", file, url("PUT", "npm-1", ""))
			if got := run(url("GET", "npm-2", "npm-")); !bytes.Equal(got, content) {
				t.Errorf("curl got %d bytes, want %d", len(got), len(content))
			}
			if got := run("--range", "16-31", url("GET", "npm-1", "")); string(got) != "0123456789abcdef" {
				t.Errorf("curl got %q for a range", got)
			}
			a := p.ask(t.Context(), "DELETE", shopPath+"/cache", user, "")
			if a.code != http.StatusOK {
				t.Errorf("clear = %d %s", a.code, a.text)
			}
			resp, err := http.Get(url("GET", "npm-1", ""))
			check(t, err)
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("what was cleared is a %d, want 404", resp.StatusCode)
			}
			if text := p.metrics(t); !strings.Contains(text, `longshore_server_cache_lookups_total{manager="npm",result="partial"} 1`) {
				t.Errorf("the metrics do not count the partial hit:\n%s", text)
			}
			check(t, p.Process.Signal(syscall.SIGTERM))
			p.end(t)
			if strings.Contains(strings.ToLower(p.stderr.String()), "signature") {
				t.Errorf("the log shows a URL:\n%s", &p.stderr)
			}
		})
	}
}
