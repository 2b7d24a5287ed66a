package e2e_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/internal/api"
)

// stackOf names a stack after the test, so that tests of one site do not wait
// for each other.
func stackOf(t *testing.T) restclient.Stack {
	name := regexp.MustCompile(`[^a-zA-Z0-9]+`).ReplaceAllString(t.Name(), "-")
	return restclient.Stack("default/app/" + name[max(0, len(name)-80):])
}

func TestCancelWhileQueuedSkips(t *testing.T) {
	t.Parallel()
	s := newSite(t) // no agent: it stays queued
	ctx := bounded(t)
	stack := stackOf(t)
	created, err := s.Create(ctx, stack, request(t, processTarget(), nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Cancel(ctx, stack, created.ID); err != nil {
		t.Fatal(err)
	}
	d, err := s.Get(ctx, stack, created.ID)
	if err != nil || d.Status != api.StatusSkipped {
		t.Fatalf("status = %s, %v; want skipped", d.Status, err)
	}
	s.agent(processTarget())
	other, log := s.deploy(stackOf(t)+"-after", request(t, processTarget(), func(r object) {
		operation(r)["preRunCommands"] = []string{program}
	}))
	if other.Status != api.StatusSucceeded {
		t.Fatalf("the next deployment is %s\n%s", other.Status, log)
	}
	if d, err := s.Get(ctx, stack, created.ID); err != nil || d.Status != api.StatusSkipped {
		t.Errorf("the cancelled one is %s now, %v; want skipped for ever", d.Status, err)
	}
}

// record finds what the stand-in recorded of itself in a log.
func recorded(log, event string) int {
	return strings.Count(log, `"event":"`+event+`"`)
}

func signals(log, name string) int {
	return strings.Count(log, `"signal":"`+name+`"`)
}

// lasting is a deployment whose operation takes that long, and says in the log
// what happens to it.
func lasting(t *testing.T, on target, duration string) object {
	return request(t, on, func(r object) {
		operation(r)["preRunCommands"] = []string{program}
		variables(r)["PULUMI_STANDIN_RECORD"] = "/dev/stderr"
		variables(r)["PULUMI_STANDIN_DURATION"] = duration
	})
}

// deaf is a lasting deployment whose operation ignores signals.
func deaf(t *testing.T, on target, duration string) object {
	r := lasting(t, on, duration)
	variables(r)["PULUMI_STANDIN_IGNORE_SIGNALS"] = "1"
	return r
}

func TestCancelWhileRunningInterruptsOnce(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		s.agent(on)
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, lasting(t, on, "60s"))
		started := time.Now()
		if err := s.Cancel(ctx, stack, id); err != nil {
			t.Fatal(err)
		}
		d, err := s.WaitEnd(ctx, stack, id)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log(stack, id))
		}
		log := s.log(stack, id)
		if d.Status != api.StatusFailed {
			t.Errorf("status = %s, want failed\n%s", d.Status, log)
		}
		if time.Since(started) > 50*time.Second {
			t.Errorf("the stand-in ran to its end instead of being interrupted\n%s", log)
		}
		if n := signals(log, "interrupt"); n != 1 {
			t.Errorf("pulumi got %d interrupts, want exactly 1\n%s", n, log)
		}
		if n := signals(log, "terminated"); n != 0 {
			t.Errorf("pulumi got %d SIGTERM, want none: it ended within its grace\n%s", n, log)
		}
		if !strings.Contains(strings.ToLower(log), "cancel") {
			t.Errorf("the log does not say that the job was cancelled:\n%s", log)
		}
	})
}

func TestCancelInsistsOnlyAfterTheGrace(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		s.agent(on, "--change-grace", "3s")
		ctx := bounded(t)
		stack := stackOf(t)
		id := s.start(stack, deaf(t, on, "90s"))
		if err := s.Cancel(ctx, stack, id); err != nil {
			t.Fatal(err)
		}
		d, err := s.WaitEnd(ctx, stack, id)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log(stack, id))
		}
		log := s.log(stack, id)
		if d.Status != api.StatusFailed {
			t.Errorf("status = %s, want failed\n%s", d.Status, log)
		}
		if n, m := signals(log, "interrupt"), signals(log, "terminated"); n != 1 || m != 1 {
			t.Errorf("pulumi got %d interrupts and %d SIGTERM, want one of each\n%s", n, m, log)
		}
		times := regexp.MustCompile(`"signal":"(?:interrupt|terminated)"[^}]*"time":"([^"]+)"|"time":"([^"]+)"[^}]*"signal":"(?:interrupt|terminated)"`).FindAllStringSubmatch(log, -1)
		if len(times) == 2 {
			first, err1 := time.Parse(time.RFC3339Nano, times[0][1]+times[0][2])
			second, err2 := time.Parse(time.RFC3339Nano, times[1][1]+times[1][2])
			if err1 != nil || err2 != nil || second.Sub(first) < 2900*time.Millisecond {
				t.Errorf("SIGTERM came %s after SIGINT, want the grace of 3s (%v %v)", second.Sub(first), err1, err2)
			}
		} else {
			t.Errorf("found %d signal times in the log, want 2\n%s", len(times), log)
		}
		if !strings.Contains(log, "pulumi cancel") {
			t.Errorf("after a kill the log should say which command mends the stack:\n%s", log)
		}
	})
}

// start creates a deployment and returns once the stand-in says it runs.
func (s *site) start(stack restclient.Stack, r object) (id string) {
	s.t.Helper()
	ctx := bounded(s.t)
	created, err := s.Create(ctx, stack, r)
	if err != nil {
		s.t.Fatal(err)
	}
	for {
		log := s.log(stack, created.ID)
		if recorded(log, "start") > 0 && strings.Contains(log, `"up"`) {
			return created.ID
		}
		d, err := s.Get(ctx, stack, created.ID)
		if err != nil {
			s.t.Fatal(err)
		}
		if d.Status.Terminal() {
			s.t.Fatalf("the deployment is %s before its operation started\n%s", d.Status, log)
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("the operation did not start:\n%s", log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
