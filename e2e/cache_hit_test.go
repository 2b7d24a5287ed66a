package e2e_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/e2e/gitserver"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

// TestCacheHits deploys a program with dependencies twice: the first job saves
// them, the second finds them. The cache is the server's, in steps of its own, or
// the agent's, around the step that installs.
func TestCacheHits(t *testing.T) {
	t.Parallel()
	npm := testkit.Path(t, "npm")
	root, source := t.TempDir(), nodeProject(t, npm)
	if _, err := gitserver.Publish(t.Context(), root, "app.git", source); err != nil {
		t.Fatal(err)
	}
	handler, err := gitserver.Handler(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(handler)
	t.Cleanup(web.Close)
	for name, args := range map[string][]string{"service": nil, "agent": {"--cache-backend", "agent"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on := processTarget()
			s := newSite(t)
			s.agent(on, args...)
			stack := stackOf(t)
			deploy := func() string {
				t.Helper()
				d, log := s.deploy(stack, request(t, on, func(r object) {
					r["sourceContext"] = object{"git": object{"repoUrl": web.URL + "/app.git", "branch": "main"}}
					if name == "service" {
						r["cacheOptions"] = object{"enable": true}
					}
				}))
				if d.Status != api.StatusSucceeded {
					t.Fatalf("the deployment has %s\n%s", d.Status, log)
				}
				return log
			}
			if log := deploy(); !strings.Contains(log, "cache: npm: miss") || !strings.Contains(log, "cache: npm: saved") {
				t.Errorf("the first job should miss and save:\n%s", log)
			}
			if log := deploy(); !strings.Contains(log, "cache: npm: hit") || !strings.Contains(log, "cache: npm: skipped") {
				t.Errorf("the second job should hit and save nothing:\n%s", log)
			}
		})
	}
}

// nodeProject makes a Pulumi program that depends on a package of its own, so
// that no registry is needed.
func nodeProject(t *testing.T, npm string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"Pulumi.yaml":           "name: app\nruntime: nodejs\n",
		"package.json":          `{"name":"app","version":"1.0.0","dependencies":{"greeting":"file:greeting-1.0.0.tgz"}}`,
		"index.js":              `require("greeting")`,
		"greeting/package.json": `{"name":"greeting","version":"1.0.0","main":"index.js"}`,
		"greeting/index.js":     `module.exports = "hello"`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"pack", "./greeting"}, {"install", "--package-lock-only", "--no-audit"}} {
		cmd := exec.CommandContext(t.Context(), npm, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm %q: %v\n%s", args, err, out)
		}
	}
	return dir
}
