package e2e_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/e2e/gitserver"
	"github.com/longshore-run/longshore/e2e/rig"
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
			agent := s.agent(on, args...)
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
			first := cacheMetrics(t, agent, 1)
			if first[`restores_total{manager="npm",result="miss"}`] != 1 || first[`saves_total{manager="npm",result="saved"}`] != 1 ||
				first[`bytes_total{direction="save",manager="npm"}`] <= 0 || first[`restores_total{manager="npm",result="hit"}`] != 0 {
				t.Errorf("the agent should have counted a miss and a save: %v", first)
			}
			if log := deploy(); !strings.Contains(log, "cache: npm: hit") || !strings.Contains(log, "cache: npm: skipped") {
				t.Errorf("the second job should hit and save nothing:\n%s", log)
			}
			second := cacheMetrics(t, agent, 2)
			if second[`restores_total{manager="npm",result="hit"}`] != 1 || second[`saves_total{manager="npm",result="saved"}`] != 1 ||
				second[`bytes_total{direction="restore",manager="npm"}`] != first[`bytes_total{direction="save",manager="npm"}`] {
				t.Errorf("the agent should have counted a hit of the same size: %v", second)
			}
		})
	}
}

// TestWhatAJobSaysOfTheCache has a step say what a cache did: the words get from
// the job to the agent's metrics on every target, and only words that are known.
func TestWhatAJobSaysOfTheCache(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		agent := s.agent(on)
		d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
			operation(r)["preRunCommands"] = []string{program, `echo '{"outcomes":[` +
				`{"action":"restore","manager":"go","result":"hit","bytes":7,"took":"2s"},` +
				`{"action":"restore","manager":"mine","result":"hit"}]}' > "$LONGSHORE_CACHE_STATE"`}
		}))
		if d.Status != api.StatusSucceeded {
			t.Fatalf("the deployment has %s\n%s", d.Status, log)
		}
		want := map[string]float64{
			`restores_total{manager="go",result="hit"}`:       1,
			`bytes_total{direction="restore",manager="go"}`:   7,
			`seconds_total{direction="restore",manager="go"}`: 2,
		}
		if diff := cmp.Diff(want, cacheMetrics(t, agent, 1)); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

// cacheMetrics returns what an agent says of the cache once it has seen so many
// jobs succeed, which is a moment after the service says so.
func cacheMetrics(t *testing.T, agent *rig.Process, jobs float64) map[string]float64 {
	t.Helper()
	const prefix = "longshore_agent_job_cache_"
	ctx := bounded(t)
	for {
		all := metrics(t, "http://"+agent.Address+"/metrics")
		if all[`longshore_agent_jobs_total{outcome="succeeded"}`] >= jobs {
			ours := map[string]float64{}
			for name, value := range all {
				if short, ok := strings.CutPrefix(name, prefix); ok {
					ours[short] = value
				}
			}
			return ours
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the agent has not counted %v jobs\n%s", jobs, agent.Tail())
		}
	}
}

// metrics returns the values at url by name and labels.
func metrics(t *testing.T, url string) map[string]float64 {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = v
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return values
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
