package e2e_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/internal/api"
)

// object is a JSON object, for writing requests as the API documents them.
type object = map[string]any

// request is a deployment with Pulumi's state in a folder of its own.
func request(t *testing.T, on target, change func(r object)) object {
	t.Helper()
	r := object{
		"operation":       "update",
		"executorContext": object{"executorImage": on.image},
		"operationContext": object{
			"environmentVariables": object{
				"PULUMI_BACKEND_URL":       "file://" + stateDir(t, on),
				"PULUMI_CONFIG_PASSPHRASE": object{"secret": "passphrase-of-the-state"},
			},
		},
	}
	if change != nil {
		change(r)
	}
	if r["sourceContext"] == nil { // dependencies are installed before the commands that make the project
		operation(r)["options"] = object{"skipInstallDependencies": true}
	}
	return r
}

func stateDir(t *testing.T, on target) string {
	if on.name == "docker" {
		return "/tmp"
	}
	return t.TempDir()
}

func operation(r object) object { return r["operationContext"].(object) }
func variables(r object) object { return operation(r)["environmentVariables"].(object) }

// program makes the project Pulumi needs with a pre-run command, for tests that
// are not about git: without a source, pre-run commands start in the directory
// the operation runs in.
const program = `printf 'name: e2e\nruntime: yaml\n' > Pulumi.yaml`

// bounded returns a context for one deployment's life.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// deploy creates a deployment and waits for its end.
func (s *site) deploy(stack restclient.Stack, r object) (api.GetDeploymentResponse, string) {
	s.t.Helper()
	ctx := bounded(s.t)
	created, err := s.Create(ctx, stack, r)
	if err != nil {
		s.t.Fatal(err)
	}
	ended, err := s.WaitEnd(ctx, stack, created.ID)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.log(stack, created.ID))
	}
	return ended, s.log(stack, created.ID)
}

// log reads the whole log as it is now, with a header before each step.
func (s *site) log(stack restclient.Stack, id string) string {
	s.t.Helper()
	var out strings.Builder
	token := ""
	for {
		lines, next, err := s.Logs(context.WithoutCancel(s.t.Context()), stack, id, token)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, l := range lines {
			if l.Header != "" {
				out.WriteString("=== " + l.Header + "\n")
			}
			out.WriteString(l.Line)
		}
		if next == "" || next == token {
			return out.String()
		}
		token = next
	}
}

// steps maps each step's name to its status.
func steps(d api.GetDeploymentResponse) map[string]api.StepStatus {
	states := map[string]api.StepStatus{}
	for _, job := range d.Jobs {
		for _, step := range job.Steps {
			states[step.Name] = step.Status
		}
	}
	return states
}

func TestAnUpdateSucceeds(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		s.agent(on)
		git := serveGit(t, nil)
		d, log := s.deploy("default/yaml-stack/dev", request(t, on, func(r object) {
			r["sourceContext"] = object{"git": object{"repoUrl": git.url("yaml-stack.git"), "branch": "refs/heads/main"}}
			operation(r)["preRunCommands"] = []string{
				`echo "first=$((1+1)) and $(pwd)"; echo "CARRIED=over" >> "$PULUMI_ENV"`,
				`echo "carried=$CARRIED"`,
			}
		}))
		if d.Status != api.StatusSucceeded {
			t.Fatalf("status = %s, want succeeded\n%s", d.Status, log)
		}
		for name, state := range steps(d) {
			if state != api.StepSucceeded {
				t.Errorf("step %q = %s, want succeeded", name, state)
			}
		}
		for _, want := range []string{
			"=== Setup\n", "=== Get source\n", "=== Pre-run command 1\n", "=== Pulumi operation\n",
			"$ echo \"first=", "first=2 and ", "/deployment\n", "carried=over\n", git.commit[:7],
		} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q:\n%s", want, log)
			}
		}
	})
}

func TestAFailingPreRunCommandFailsTheDeployment(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		s.agent(on)
		d, log := s.deploy("default/app/dev", request(t, on, func(r object) {
			operation(r)["preRunCommands"] = []string{program, "echo before; exit 7", "echo never"}
		}))
		if d.Status != api.StatusFailed {
			t.Fatalf("status = %s, want failed\n%s", d.Status, log)
		}
		want := map[string]api.StepStatus{
			"Pre-run command 1": api.StepSucceeded,
			"Pre-run command 2": api.StepFailed,
			"Pre-run command 3": api.StepNotStarted,
			"Pulumi operation":  api.StepNotStarted,
		}
		got := steps(d)
		for name, state := range want {
			if got[name] != state {
				t.Errorf("step %q = %s, want %s", name, got[name], state)
			}
		}
		if !strings.Contains(log, "7") || strings.Contains(log, "never\n") {
			t.Errorf("the log should name exit code 7 and lack what never ran:\n%s", log)
		}
	})
}

func TestEveryOperationRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	on := processTarget()
	s.agent(on)
	state := filepath.Join(t.TempDir(), "state")
	for _, op := range api.Operations() {
		d, log := s.deploy("default/app/dev", request(t, on, func(r object) {
			r["operation"] = string(op)
			variables(r)["PULUMI_BACKEND_URL"] = "file://" + state
			operation(r)["preRunCommands"] = []string{program, "mkdir -p " + state}
		}))
		if d.Status != api.StatusSucceeded {
			t.Errorf("%s = %s, want succeeded\n%s", op, d.Status, log)
		}
	}
}
