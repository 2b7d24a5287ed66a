package e2e_test

import (
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/api"
)

// TestPluginsAreThereAgain: what a deployment has got is there for the next one
// of its stack.
func TestPluginsAreThereAgain(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		s.agent(on)
		git := serveGit(t, nil)
		const plugin = `"$HOME/.pulumi/plugins/resource-e2e-v1.0.0"`
		deploy := func(command string) string {
			t.Helper()
			d, log := s.deploy("default/yaml-stack/dev", request(t, on, func(r object) {
				r["sourceContext"] = object{"git": object{"repoUrl": git.url("yaml-stack.git"), "branch": "refs/heads/main"}}
				r["cacheOptions"] = object{"enable": true}
				operation(r)["preRunCommands"] = []string{command}
			}))
			if d.Status != api.StatusSucceeded || steps(d)["Restore cache"] != api.StepSucceeded || steps(d)["Save cache"] != api.StepSucceeded {
				t.Fatalf("%s %v\n%s", d.Status, steps(d), log)
			}
			return log
		}
		if on.name != "docker" {
			// Jobs share the home of the host: nothing of it is kept, or replaced.
			if log := deploy("true"); strings.Count(log, "belongs to the host") != 2 {
				t.Errorf("log:\n%s", log)
			}
			return
		}
		log := deploy("mkdir -p " + plugin + " && echo content > " + plugin + "/bin")
		if !strings.Contains(log, "cache: plugins: miss: ") || !strings.Contains(log, "cache: plugins: saved: ") {
			t.Errorf("first log:\n%s", log)
		}
		log = deploy("cat " + plugin + "/bin")
		if !strings.Contains(log, "cache: plugins: hit: ") || !strings.Contains(log, "\ncontent\n") || !strings.Contains(log, "restored from this entry") {
			t.Errorf("second log:\n%s", log)
		}
	})
}
