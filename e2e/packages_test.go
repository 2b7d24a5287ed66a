package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

// TestPackagesCanBeInstalledInAPreRunCommand: people install what their image
// lacks. The capabilities that jobs keep must allow it, in a real Debian.
func TestPackagesCanBeInstalledInAPreRunCommand(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "docker")
	testkit.Need(t, "root") // debootstrap makes device nodes
	debootstrap := testkit.Path(t, "debootstrap")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	const reference = "longshore-e2e-debian:latest"
	if err := rig.ImportDebian(t.Context(), reference, debootstrap, filepath.Join(cache, "longshore-e2e", "debian.tar")); err != nil {
		t.Fatal(err)
	}
	on := target{
		name:      "docker",
		agentArgs: []string{"--deploy-target", "docker", "--docker-network", "host", "--pull-policy", "never"},
		image:     reference,
	}
	s := newSite(t)
	s.agent(on)
	// The operation itself fails, as this image has no pulumi: what matters is
	// what came before, and that the message says so.
	d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
		operation(r)["preRunCommands"] = []string{
			"apt-get update -qq && apt-get install -y -qq --no-install-recommends hello && hello",
		}
	}))
	if got := steps(d)["Pre-run command 1"]; got != api.StepSucceeded {
		t.Fatalf("installing a package = %s, want succeeded\n%s", got, log)
	}
	if !strings.Contains(log, "Hello, world!") {
		t.Errorf("the installed program did not run:\n%s", log)
	}
	if steps(d)["Pulumi operation"] != api.StepFailed || !strings.Contains(log, "pulumi") {
		t.Errorf("an image without pulumi should fail the operation and say so:\n%s", log)
	}
}
