package faults_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/faults/proxy"
	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

const image = "longshore-faults-job:latest"

var imported struct {
	once sync.Once
	err  error
}

// onDocker are the flags of an agent whose jobs are containers.
func onDocker(t *testing.T) []string {
	t.Helper()
	testkit.Need(t, "docker")
	busybox := testkit.Path(t, "busybox")
	imported.once.Do(func() { imported.err = rig.ImportImage(context.Background(), image, busybox, programs.Standin) })
	if imported.err != nil {
		t.Fatal(imported.err)
	}
	return []string{"--deploy-target", "docker", "--docker-network", "host", "--pull-policy", "never", "--override-image", image}
}

// containers are those of a deployment, ended ones included.
func containers(t *testing.T, id string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=run.longshore.deployment="+id).Output()
	if err != nil {
		t.Fatalf("docker ps: %v", err)
	}
	return strings.Fields(string(out))
}

// gone waits until there are no containers of a deployment.
func (s *site) gone(id string) {
	s.t.Helper()
	for ctx := s.bounded(); len(containers(s.t, id)) > 0; pause(ctx) {
		if ctx.Err() != nil {
			s.t.Errorf("left behind: %q", containers(s.t, id))
			return
		}
	}
}

func TestAContainerThatAnOperatorRemovesFailsItsDeploymentAndSaysSo(t *testing.T) {
	t.Parallel()
	flags := onDocker(t)
	s := newSite(t)
	s.agent(append(flags, "--concurrency", "1")...)
	id := s.create(request(object{"PULUMI_STANDIN_DURATION": "60s"}))
	s.until(id, began)
	for _, container := range containers(t, id) {
		if out, err := exec.CommandContext(t.Context(), "docker", "rm", "--force", container).CombinedOutput(); err != nil {
			t.Fatalf("docker rm: %v\n%s", err, out)
		}
	}
	status, log := s.end(id)
	if status != api.StatusFailed || !strings.Contains(log, "removed outside of the agent") || !strings.Contains(log, "pulumi cancel") {
		t.Errorf("status = %s, want failed with a reason and advice\n%s", status, log)
	}
	// The slot is free again.
	if status, log := s.end(s.create(request(nil))); status != api.StatusSucceeded {
		t.Errorf("the next deployment is %s\n%s", status, log)
	}
}

// TestAnEngineThatIsAwayHarmsNoRunningJob: the socket between agent and engine
// breaks, as it does when the daemon restarts, or takes connections and says
// nothing, as it does when the daemon hangs. The container goes on, and afterwards
// all is well.
func TestAnEngineThatIsAwayHarmsNoRunningJob(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*proxy.Link){
		"its socket breaks": (*proxy.Link).Down,
		"it hangs":          (*proxy.Link).Hang,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := onDocker(t)
			path := filepath.Join(t.TempDir(), "engine.sock")
			link, err := proxy.NewLink(t.Context(), "unix", path, "/var/run/docker.sock")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(link.Close)
			s := newSite(t)
			s.agent(append(flags, "--docker-host", "unix://"+path, "--concurrency", "2")...)
			id := s.create(request(printing("1600", "200")))
			s.until(id, " line 0 ")
			away(link)
			// The operation goes on, whatever the agent knows of it.
			waiting := s.create(request(nil))
			s.until(id, " 1000 ....")
			link.Up()
			status, log := s.end(id)
			if status != api.StatusSucceeded || count(log, interrupted) != 0 {
				t.Errorf("status = %s, want succeeded without an interrupt\n%s", status, log)
			}
			whole(t, log, 1600)
			s.gone(id)
			if status, log := s.end(waiting); status != api.StatusSucceeded {
				t.Errorf("the deployment that was created meanwhile is %s\n%s", status, log)
			}
			s.gone(waiting)
		})
	}
}

// TestNoDeploymentIsClaimedWhileTheEngineIsAway: what cannot be run is left to
// others.
func TestNoDeploymentIsClaimedWhileTheEngineIsAway(t *testing.T) {
	t.Parallel()
	flags := onDocker(t)
	path := filepath.Join(t.TempDir(), "engine.sock")
	link, err := proxy.NewLink(t.Context(), "unix", path, "/var/run/docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	s := newSite(t)
	s.agent(append(flags, "--docker-host", "unix://"+path, "--concurrency", "1")...)
	if status, log := s.end(s.create(request(nil))); status != api.StatusSucceeded {
		t.Fatalf("status = %s\n%s", status, log)
	}
	link.Down()
	held := time.NewTimer(2 * time.Second) // a poll that was held from before
	defer held.Stop()
	<-held.C
	id := s.create(request(nil))
	still := time.NewTimer(2 * time.Second)
	defer still.Stop()
	<-still.C
	if d, err := s.Get(s.bounded(), stack, id); err != nil || d.Status != api.StatusNotStarted {
		t.Errorf("the deployment is %s, %v, want not-started: the agent cannot run it", d.Status, err)
	}
	link.Up()
	if status, log := s.end(id); status != api.StatusSucceeded {
		t.Errorf("status = %s after the engine is back\n%s", status, log)
	}
}
