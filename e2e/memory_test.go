package e2e_test

import (
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/api"
)

// limited is the target with a memory limit for each job.
func limited(t *testing.T) target {
	on := dockerTarget(t)
	on.agentArgs = append(on.agentArgs, "--job-memory", "128MiB")
	return on
}

func TestPulumiIsInterruptedBeforeMemoryRunsOut(t *testing.T) {
	t.Parallel()
	on := limited(t)
	s := newSite(t)
	s.agent(on)
	d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
		operation(r)["preRunCommands"] = []string{program}
		variables(r)["PULUMI_STANDIN_MEMORY"] = "1000"
		variables(r)["PULUMI_STANDIN_MEMORY_RATE"] = "10"
		variables(r)["PULUMI_STANDIN_DURATION"] = "1m"
		variables(r)["PULUMI_STANDIN_RECORD"] = "/dev/stdout"
	}))
	if d.Status != api.StatusFailed || steps(d)["Pulumi operation"] != api.StepFailed {
		t.Errorf("status %s, steps %v", d.Status, steps(d))
	}
	if n := signals(log, "interrupt"); n != 1 || signals(log, "terminated") != 0 {
		t.Errorf("pulumi got %d interrupts\n%s", n, log)
	}
	rest := log
	for _, want := range []string{
		"longshore: warning: this job uses 1", " MiB of its 128 MiB of memory (85% and more)\n", "sent an interrupt (SIGINT)",
		"error: update canceled\n", "longshore: out of memory (limit 128 MiB, peak 1", "before the kernel would have killed",
	} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("the log lacks %q in its place:\n%s", want, log)
		}
		rest = after
	}
	if strings.Count(rest, "\n") != 1 {
		t.Errorf("that is not the last line:\n%s", log)
	}
}

func TestTheKernelKillsWhatTakesAllMemoryAtOnce(t *testing.T) {
	t.Parallel()
	on := limited(t)
	s := newSite(t)
	s.agent(on)
	for name, commands := range map[string][]string{
		"pulumi itself":                         nil,
		"a child whose end nobody looks at":     {program, `pulumi stack init s; sh -c "PULUMI_STANDIN_MEMORY=1000 pulumi up --yes --stack s; true"`},
		"a child whose end the shell passes on": {program, `pulumi stack init s && PULUMI_STANDIN_MEMORY=1000 pulumi up --yes --stack s`},
	} {
		t.Run(name, func(t *testing.T) {
			failed := "Pre-run command 2"
			d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
				operation(r)["preRunCommands"] = commands
				if commands == nil {
					failed = "Pulumi operation"
					operation(r)["preRunCommands"] = []string{program}
					variables(r)["PULUMI_STANDIN_MEMORY"] = "1000"
				}
			}))
			if d.Status != api.StatusFailed || steps(d)[failed] != api.StepFailed {
				t.Errorf("status %s, steps %v\n%s", d.Status, steps(d), log)
			}
			if !strings.Contains(log, "longshore: out of memory (limit 128 MiB, peak 12") || !strings.Contains(log, "the kernel killed a process of this step") {
				t.Errorf("the log does not say why:\n%s", log)
			}
		})
	}
}
