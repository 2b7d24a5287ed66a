package e2e_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
)

// says waits until a process has written text.
func says(ctx context.Context, t *testing.T, p *rig.Process, text string) {
	t.Helper()
	for !strings.Contains(p.Tail(), text) {
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not say %q:\n%s", p.Name, text, p.Tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ended waits for the end of a process and returns its exit code.
func ended(ctx context.Context, t *testing.T, p *rig.Process) int {
	t.Helper()
	select {
	case <-p.Done():
		return p.ExitCode()
	case <-ctx.Done():
		t.Fatalf("%s did not end:\n%s", p.Name, p.Tail())
		return 0
	}
}

// operator calls a command of the agent program for a running agent.
func (s *site) operator(ctx context.Context, agent *rig.Process, args ...string) string {
	s.t.Helper()
	args = append(args, "--working-directory", filepath.Join(s.Dir, agent.Name))
	out, err := exec.CommandContext(ctx, built.programs.Agent, args...).CombinedOutput()
	if err != nil {
		s.t.Errorf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestAnOperatorDrainsAnAgentWithAJob(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		const lines = 40
		s := newSite(t)
		agent := s.agent(on, "--concurrency", "1")
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, printing(t, on, lines, 20))
		status := s.operator(ctx, agent, "status")
		for _, want := range []string{"running, 1 of 1 slots in use", "slots: all are in use", "deployment " + id} {
			if !strings.Contains(status, want) {
				t.Errorf("status does not say %q:\n%s", want, status)
			}
		}
		out := s.operator(ctx, agent, "drain", "--wait")
		if !strings.HasPrefix(out, "draining, 1 of 1 slots in use\n") || !strings.HasSuffix(out, "the agent has ended\n") {
			t.Errorf("drain --wait says\n%s", out)
		}
		if code := ended(ctx, t, agent); code != 0 {
			t.Errorf("the agent ended with %d, want 0", code)
		}
		d, err := s.Get(ctx, stack, id)
		log := s.log(stack, id)
		if err != nil || d.Status != api.StatusSucceeded {
			t.Errorf("status = %s, %v; want the job to have finished\n%s", d.Status, err, log)
		}
		whole(t, log, lines)
		s.clean(on, agent, id)
	})
}

func TestADrainThatTakesTooLongCancels(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		agent := s.agent(on, "--drain-timeout", "1s")
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, lasting(t, on, "100s"))
		agent.Drain()
		if code := ended(ctx, t, agent); code != 0 {
			t.Errorf("the agent ended with %d, want 0", code)
		}
		d, err := s.Get(ctx, stack, id)
		log := s.log(stack, id)
		if err != nil || d.Status != api.StatusFailed || signals(log, "interrupt") != 1 || signals(log, "terminated") != 0 {
			t.Errorf("status = %s, %v, want failed by one interrupt\n%s", d.Status, err, log)
		}
		s.clean(on, agent, id)
	})
}

func TestAThirdSignalLeavesTheJobsToTheNextAgent(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		first := s.agent(on)
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, deaf(t, on, "8s"))
		for _, said := range []string{"draining: ", "stopping: jobs in hand are cancelled", "leaving at once: jobs in hand are left running"} {
			if err := first.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			says(ctx, t, first, said)
		}
		if code := ended(ctx, t, first); code != 130 {
			t.Errorf("the agent ended with %d, want 130", code)
		}
		if d, err := s.Get(ctx, stack, id); err != nil || d.Status.Terminal() {
			t.Fatalf("status = %s, %v, right after the agent left: want a job that runs", d.Status, err)
		}
		next := s.again(on, first)
		d, err := s.WaitEnd(ctx, stack, id)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log(stack, id))
		}
		log := s.log(stack, id)
		if !d.Status.Terminal() || recorded(log, "start") != 1+strings.Count(log, `"stack","init"`) || signals(log, "interrupt") != 1 {
			t.Errorf("status = %s, want one run with one interrupt\n%s", d.Status, log)
		}
		says(ctx, t, next, "job taken over")
		s.clean(on, next, id)
	})
}

func TestAnAgentOfAnAutoscaledMachineEnds(t *testing.T) {
	t.Parallel()
	on := processTarget()
	s := newSite(t)
	counted := s.agent(on, "--max-jobs", "2", "--concurrency", "1")
	ctx := bounded(t)
	for i := range 2 {
		d, log := s.deploy(stackOf(t)+restclient.Stack(fmt.Sprint("-", i)), request(t, on, func(r object) {
			operation(r)["preRunCommands"] = []string{program}
		}))
		if d.Status != api.StatusSucceeded {
			t.Errorf("status = %s\n%s", d.Status, log)
		}
	}
	idle := s.agent(on, "--idle-timeout", "1s")
	for _, agent := range []*rig.Process{counted, idle} {
		if code := ended(ctx, t, agent); code != 0 {
			t.Errorf("%s ended with %d, want 0:\n%s", agent.Name, code, agent.Tail())
		}
	}
}

func TestAnAgentWithoutRoomOnItsDiskClaimsNothing(t *testing.T) {
	t.Parallel()
	on := processTarget()
	s := newSite(t)
	agent := s.agent(on, "--disk-min-free", "1000000GiB", "--clock-max-skew", "1m")
	ctx := bounded(t)
	says(ctx, t, agent, "not polling")
	status := s.operator(ctx, agent, "status")
	if !strings.Contains(status, " of --disk-min-free") || strings.Contains(status, "clock") {
		t.Errorf("status says\n%s\nwant that there is too little room, and nothing of the clock", status)
	}
}
