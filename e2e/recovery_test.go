package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
)

// again starts an agent with the working directory of one that was killed.
func (s *site) again(on target, killed *rig.Process, args ...string) *rig.Process {
	s.t.Helper()
	i := slices.Index(s.agents, killed)
	a, err := s.StartAgent(s.t.Context(), built.programs, killed.Name, s.poolToken,
		slices.Concat([]string{"--poll-wait", "2s"}, on.agentArgs, args), on.agentEnv)
	if err != nil {
		s.t.Fatal(err)
	}
	s.agents[i] = a
	return a
}

// left lists what an agent still has of jobs: containers, directories, and what
// it remembers.
func (s *site) left(on target, agent *rig.Process, deployment string) []string {
	s.t.Helper()
	dir := filepath.Join(s.Dir, agent.Name)
	left, err := filepath.Glob(filepath.Join(dir, "jobs", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	entries, err := filepath.Glob(filepath.Join(dir, "state", "*.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	left = append(left, entries...)
	if on.name == "docker" {
		out, err := exec.CommandContext(s.t.Context(), "docker", "ps", "-aq", "--filter", "label=run.longshore.deployment="+deployment).Output()
		if err != nil {
			s.t.Fatal(err)
		}
		left = append(left, strings.Fields(string(out))...)
	}
	return left
}

// clean waits until an agent has nothing of a job any more.
func (s *site) clean(on target, agent *rig.Process, deployment string) {
	s.t.Helper()
	ctx := bounded(s.t)
	for {
		left := s.left(on, agent, deployment)
		if len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("left behind: %q\n%s", left, agent.Tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// printing is a deployment whose operation prints numbered lines for some
// seconds.
func printing(t *testing.T, on target, lines, rate int) object {
	return request(t, on, func(r object) {
		operation(r)["preRunCommands"] = []string{program}
		variables(r)["PULUMI_STANDIN_RECORD"] = "/dev/stderr"
		variables(r)["PULUMI_STANDIN_LINES"] = strconv.Itoa(lines)
		variables(r)["PULUMI_STANDIN_RATE"] = strconv.Itoa(rate)
	})
}

// whole checks that every printed line is in the log once and in order.
func whole(t *testing.T, log string, lines int) {
	t.Helper()
	printed := regexp.MustCompile(`(?m)^at \S+ line (\d+)`).FindAllStringSubmatch(log, -1)
	if len(printed) != lines {
		t.Fatalf("the log has %d of the %d lines:\n%s", len(printed), lines, log)
	}
	for i, m := range printed {
		if m[1] != strconv.Itoa(i) {
			t.Fatalf("line %d of the log is number %s", i, m[1])
		}
	}
}

func TestAKilledAgentLosesNoJob(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		const lines = 120
		s := newSite(t)
		first := s.agent(on)
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, printing(t, on, lines, 20))
		first.Kill()
		next := s.again(on, first)
		d, err := s.WaitEnd(ctx, stack, id)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log(stack, id))
		}
		log := s.log(stack, id)
		if d.Status != api.StatusSucceeded || recorded(log, "start") != 1+strings.Count(log, `"stack","init"`) {
			t.Errorf("status = %s, want succeeded by one run\n%s", d.Status, log)
		}
		whole(t, log, lines)
		s.clean(on, next, id)
		if !strings.Contains(next.Tail(), "job taken over") {
			t.Errorf("the next agent did not take the job over:\n%s", next.Tail())
		}
	})
}

func TestAJobThatWasTakenOverIsCancelledOnce(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		first := s.agent(on)
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, lasting(t, on, "100s"))
		first.Kill()
		next := s.again(on, first)
		if err := s.Cancel(ctx, stack, id); err != nil {
			t.Fatal(err)
		}
		d, err := s.WaitEnd(ctx, stack, id)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log(stack, id))
		}
		log := s.log(stack, id)
		if d.Status != api.StatusFailed || signals(log, "interrupt") != 1 || signals(log, "terminated") != 0 {
			t.Errorf("status = %s with %d interrupts and %d SIGTERM, want one interrupt\n%s",
				d.Status, signals(log, "interrupt"), signals(log, "terminated"), log)
		}
		s.clean(on, next, id)
	})
}

func TestAJobThatEndedWithoutItsAgentIsCleanedUp(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		first := s.agent(on)
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, printing(t, on, 20, 20))
		first.Kill()
		d, err := s.WaitEnd(ctx, stack, id)
		if err != nil || d.Status != api.StatusSucceeded {
			t.Fatalf("status = %s, %v: the executor does not need its agent\n%s", d.Status, err, s.log(stack, id))
		}
		if len(s.left(on, first, id)) == 0 {
			t.Fatal("nothing is left behind, so this test shows nothing")
		}
		s.clean(on, s.again(on, first), id)
	})
}

func TestAnExecutorThatDiesWithoutItsAgentFailsTheJob(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		first := s.agent(on)
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, printing(t, on, 4000, 20))
		first.Kill()
		s.killExecutor(ctx, on, first, id)
		next := s.again(on, first)
		d, err := s.WaitEnd(ctx, stack, id)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log(stack, id))
		}
		log := s.log(stack, id)
		if d.Status != api.StatusFailed || !strings.Contains(log, "pulumi cancel") {
			t.Errorf("status = %s, want failed with a reason and advice\n%s", d.Status, log)
		}
		s.clean(on, next, id)
	})
}

// killExecutor kills the executor of a deployment with SIGKILL.
func (s *site) killExecutor(ctx context.Context, on target, agent *rig.Process, deployment string) {
	s.t.Helper()
	if on.name == "docker" {
		out, err := exec.CommandContext(ctx, "docker", "ps", "-q", "--filter", "label=run.longshore.deployment="+deployment).Output()
		if err == nil {
			err = exec.CommandContext(ctx, "docker", "kill", "--signal", "KILL", strings.TrimSpace(string(out))).Run()
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return
	}
	records, err := filepath.Glob(filepath.Join(s.Dir, agent.Name, "jobs", "*", "executor.json"))
	if err != nil || len(records) != 1 {
		s.t.Fatalf("records of executors: %q, %v", records, err)
	}
	text, err := os.ReadFile(records[0])
	if err != nil {
		s.t.Fatal(err)
	}
	pid, err := strconv.Atoi(regexp.MustCompile(`"pid":(\d+)`).FindStringSubmatch(string(text))[1])
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestTwoAgentsDoNotShareADirectory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	on := processTarget()
	first := s.agent(on)
	_, err := s.StartAgent(t.Context(), built.programs, first.Name, s.poolToken, on.agentArgs, on.agentEnv)
	want := fmt.Sprintf("is in use by another longshore-agent (process %d on ", first.Pid())
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "exit code 2") {
		t.Errorf("a second agent in the same directory: %v, want %q and exit code 2", err, want)
	}
}

func TestAnOperationWhoseExecutorDiesEndsInOrder(t *testing.T) {
	t.Parallel()
	on := processTarget() // in a container the kernel leaves nobody
	s := newSite(t)
	agent := s.agent(on)
	ctx := bounded(t)
	stack := stackOf(t)
	record := filepath.Join(t.TempDir(), "record")
	created, err := s.Create(ctx, stack, request(t, on, func(r object) {
		operation(r)["preRunCommands"] = []string{program}
		variables(r)["PULUMI_STANDIN_RECORD"] = record
		variables(r)["PULUMI_STANDIN_DURATION"] = "100s"
	}))
	if err != nil {
		t.Fatal(err)
	}
	recordHas(ctx, t, record, `"up"`)
	s.killExecutor(ctx, on, agent, created.ID)
	d, err := s.WaitEnd(ctx, stack, created.ID)
	if err != nil || d.Status != api.StatusFailed {
		t.Fatalf("status = %s, %v\n%s", d.Status, err, s.log(stack, created.ID))
	}
	events := recordHas(ctx, t, record, `"exit":255`) // interrupted, and not killed
	if signals(events, "interrupt") != 1 || signals(events, "terminated") != 0 {
		t.Errorf("pulumi got something else than one interrupt:\n%s", events)
	}
	if log := s.log(stack, created.ID); !strings.Contains(log, "killed by SIGKILL") {
		t.Errorf("the log does not say what became of the executor:\n%s", log)
	}
	s.clean(on, agent, created.ID)
}

// recordHas waits until the stand-in's record has a text, and returns it all.
func recordHas(ctx context.Context, t *testing.T, path, text string) string {
	t.Helper()
	for {
		events, _ := os.ReadFile(path)
		if strings.Contains(string(events), text) {
			return string(events)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the record does not get %s:\n%s", text, events)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
