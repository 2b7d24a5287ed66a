package faults_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/faults/proxy"
	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

// command runs a program of the system, and undoes it at the end by another.
func command(t *testing.T, undo []string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if undo == nil {
		return
	}
	t.Cleanup(func() {
		if out, err := exec.Command(undo[0], undo[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(undo, " "), err, out)
		}
	})
}

// TestAnUnpluggedHostLosesNothing: agent and job live in a network namespace of
// their own. Its only link goes down in the middle of an operation, for longer
// than a call may take, and comes back.
func TestAnUnpluggedHostLosesNothing(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "netns")
	ip := testkit.Path(t, "ip")
	number := os.Getpid() % 10000
	space, near, far := fmt.Sprintf("longshore-%d", number), fmt.Sprintf("lsn%d", number), fmt.Sprintf("lsf%d", number)
	// Addresses for measurements between neighbours: no network uses them.
	const here, there = "198.18.213.1", "198.18.213.2"
	command(t, []string{ip, "netns", "delete", space}, ip, "netns", "add", space)
	command(t, []string{ip, "link", "delete", near}, ip, "link", "add", near, "type", "veth", "peer", "name", far)
	command(t, nil, ip, "link", "set", far, "netns", space)
	command(t, nil, ip, "address", "add", here+"/30", "dev", near)
	command(t, nil, ip, "link", "set", near, "up")
	command(t, nil, ip, "netns", "exec", space, ip, "address", "add", there+"/30", "dev", far)
	command(t, nil, ip, "netns", "exec", space, ip, "link", "set", far, "up")
	command(t, nil, ip, "netns", "exec", space, ip, "link", "set", "lo", "up")

	s := newSite(t)
	listen, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(here, "0"))
	if err != nil {
		t.Fatal(err)
	}
	door := proxy.On(t.Context(), listen, strings.TrimPrefix(s.URL, "http://"), nil)
	t.Cleanup(door.Close)
	token := filepath.Join(s.Dir, "token")
	if err := os.WriteFile(token, []byte(s.token), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := rig.Start(t.Context(), s.Dir, "agent-1", ip, []string{
		"netns", "exec", space, programs.Agent, "run", "--service-url", door.URL(), "--token-file", token, "--agent-name", "agent-1",
		"--deploy-target", "process", "--working-directory", filepath.Join(s.Dir, "agent-1"), "--http-server-port", "-1",
		"--poll-wait", "1s", "--request-timeout", "2s", "--request-retry-wait", "200ms", "--request-retry-max-wait", "500ms", "--circuit-breaker-timeout", "500ms",
	}, []string{"PATH=" + filepath.Dir(programs.Standin) + ":" + os.Getenv("PATH")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(a) })

	id := s.create(request(printing("1200", "200")))
	s.until(id, " line 0 ")
	command(t, nil, ip, "link", "set", near, "down")
	unplugged := time.NewTimer(4 * time.Second)
	defer unplugged.Stop()
	<-unplugged.C
	command(t, nil, ip, "link", "set", near, "up")
	status, log := s.end(id)
	if status != api.StatusSucceeded || count(log, began) != 1 || count(log, interrupted) != 0 {
		t.Errorf("status = %s, want succeeded without an interrupt\n%s", status, log)
	}
	whole(t, log, 1200)
	s.settle()
}

// TestAFullDiskFailsTheJobAndNotTheAgent: a job fills the file system that the
// agent keeps everything on. It fails and says why; the agent goes on.
func TestAFullDiskFailsTheJobAndNotTheAgent(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "root")
	mount, umount := testkit.Path(t, "mount"), testkit.Path(t, "umount")
	s := newSite(t)
	dir := filepath.Join(s.Dir, "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, []string{umount, dir}, mount, "-t", "tmpfs", "-o", "size=4m", "longshore-faults", dir)
	a := s.agent("--concurrency", "1", "--working-directory", dir, "--disk-min-free", "1MiB")
	t.Cleanup(func() { s.stop(a) }) // before the file system goes

	id := s.create(request(nil, `echo "filling"; dd if=/dev/zero of=big bs=65536 count=1000; code=$?; for i in 1 2 3 4 5 6 7 8 9 10; do echo "line $i after it is full"; done; exit $code`))
	status, log := s.end(id)
	if status != api.StatusFailed || !strings.Contains(strings.ToLower(log), "no space left on device") {
		t.Errorf("status = %s, want failed for lack of space\n%s", status, log)
	}
	if n := count(log, "after it is full\n"); n != 10 && !strings.Contains(log, "are missing") {
		t.Errorf("the log has %d lines of 10 and no word about the others:\n%s", n, log)
	}
	if status, log := s.end(s.create(request(printing("100", "1000")))); status != api.StatusSucceeded {
		t.Errorf("the next deployment is %s\n%s", status, log)
	}
	left, err := filepath.Glob(filepath.Join(dir, "jobs", "*"))
	for ctx := s.bounded(); err == nil && len(left) > 0 && ctx.Err() == nil; pause(ctx) {
		left, err = filepath.Glob(filepath.Join(dir, "jobs", "*"))
	}
	if len(left) != 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
