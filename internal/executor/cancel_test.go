package executor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

func TestCancelBeforeTheFirstStepReallyRuns(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.away = true
	e := start(t, s, definition("echo ready > ready; sleep 60"), nil)
	s.await("a first call", func() bool { return s.refused > 0 })
	e.signal(syscall.SIGTERM)
	s.set(func() { s.away = false })
	e.expect(api.ExitCancelled, api.OutcomeCancelled, true)
}

// operation is a job that runs one operation by the stand-in.
func operation(op api.Operation, env map[string]string) api.JobDefinition {
	def := definition("printf 'name: app\nruntime: yaml\n' > Pulumi.yaml",
		`"${LONGSHORE_EXECUTOR:-./pulumi-deploy-executor}" pulumi `+string(op)+` --stackIdentity="acme/app/dev" --workDir="."`)
	def.Operation = op
	def.Env = map[string]string{
		"PULUMI_BACKEND_URL": "https://service.invalid", "PULUMI_STANDIN_RECORD": "record",
		"PULUMI_CI_ORGANIZATION": "acme", "PULUMI_CI_PROJECT": "app", "PULUMI_CI_STACK": "dev",
	}
	for name, value := range env {
		def.Env[name] = value
	}
	return def
}

// signals returns what the stand-in of a job recorded of its signals.
func (e *execution) signals() []string {
	content, _ := os.ReadFile(filepath.Join(e.dir, "work", "record"))
	var out []string
	for _, m := range regexp.MustCompile(`"signal":"(\w+)"`).FindAllStringSubmatch(string(content), -1) {
		out = append(out, m[1])
	}
	return out
}

func TestAPulumiOperation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, operation(api.OperationUpdate, nil), nil)
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
	if !strings.Contains(s.log(2), "Updating (acme/app/dev)") {
		t.Errorf("log = %s", s.log(2))
	}
}

func TestCancelGivesPulumiOneInterrupt(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, operation(api.OperationUpdate, map[string]string{"PULUMI_STANDIN_DURATION": "1m"}), nil)
	s.awaitLog(2, "app-dev running")
	for range 5 {
		e.signal(syscall.SIGTERM)
		e.signal(syscall.SIGINT)
	}
	e.expect(api.ExitCancelled, api.OutcomeCancelled, true)
	if diff := cmp.Diff([]string{"interrupt"}, e.signals()); diff != "" {
		t.Errorf("signals (-want +got):\n%s\n%s", diff, s.log(2))
	}
	log := s.log(2)
	for _, want := range []string{"the job was cancelled: sent an interrupt", "Cancelling...", "exited with code 255"} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "SIGTERM") || strings.Contains(log, "pulumi cancel --stack") || strings.Count(log, "being stopped already") != 1 {
		t.Errorf("log says too much:\n%s", log)
	}
}

func TestPulumiThatIgnoresTheInterruptGetsSIGTERMAndSIGKILLAfterTheGraces(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, operation(api.OperationPreview, map[string]string{"PULUMI_STANDIN_DURATION": "2m", "PULUMI_STANDIN_IGNORE_SIGNALS": "1"}),
		func(f *api.JobFile) { f.QuickGrace = api.Duration(700 * time.Millisecond) })
	s.awaitLog(2, "app-dev running")
	began := time.Now()
	e.signal(syscall.SIGTERM)
	e.expect(api.ExitCancelled, api.OutcomeCancelled, true)
	if diff := cmp.Diff([]string{"interrupt", "terminated"}, e.signals()); diff != "" {
		t.Errorf("signals (-want +got):\n%s\n%s", diff, s.log(2))
	}
	if took := time.Since(began); took < 10*time.Second || took > 20*time.Second {
		t.Errorf("the ladder took %s, want its graces of 0.7 s and 10 s", took)
	}
	log := s.log(2)
	for _, want := range []string{"has 700ms to finish", "sent SIGTERM", "killed it (SIGKILL)", "pulumi cancel --stack acme/app/dev --yes"} {
		_, after, ok := strings.Cut(log, want)
		if !ok {
			t.Errorf("log lacks %q in its place:\n%s", want, s.log(2))
		}
		log = after
	}
	pid := regexp.MustCompile(`"pid":(\d+)`).FindStringSubmatch(readFile(t, filepath.Join(e.dir, "work", "record")))
	if n, _ := strconv.Atoi(pid[1]); syscall.Kill(n, 0) == nil && !isZombie(n) {
		t.Errorf("pulumi (%d) lives on", n)
	}
}

// TestAKilledExecutorInterruptsPulumi: nobody is left to report to, but pulumi
// ends as it should, and saves its state.
func TestAKilledExecutorInterruptsPulumi(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, operation(api.OperationUpdate, map[string]string{"PULUMI_STANDIN_DURATION": "1m"}), nil)
	s.awaitLog(2, "app-dev running")
	e.signal(syscall.SIGKILL)
	_ = e.cmd.Wait()
	record := filepath.Join(e.dir, "work", "record")
	e.await("the end of pulumi", func() bool { return strings.Contains(readFile(t, record), `"event":"end"`) })
	if diff := cmp.Diff([]string{"interrupt"}, e.signals()); diff != "" || !strings.Contains(readFile(t, record), `"exit":255`) {
		t.Errorf("signals (-want +got):\n%s\n%s", diff, readFile(t, record))
	}
	if r := e.report(); r.Outcome != "" || r.Step != 2 || r.Status != api.StepRunning {
		t.Errorf("report = %+v, want one that knows no end", r)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestGrandchildrenThatEscapedAreKilledWithTheJob(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "setsid")
	for name, cancel := range map[string]bool{"at its end": false, "when it is cancelled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			script := `setsid sh -c 'setsid sh -c "trap \"\" INT TERM; echo \$\$ > pid; while :; do sleep 0.05; done" &' & until [ -s pid ]; do sleep 0.02; done; echo ready`
			if cancel {
				script += "; sleep 60"
			}
			e := start(t, s, definition(script), nil)
			want := api.OutcomeSucceeded
			if cancel {
				s.awaitLog(1, "\nready\n")
				e.signal(syscall.SIGTERM)
				want = api.OutcomeCancelled
			}
			began := time.Now()
			e.expect(want.ExitCode(), want, true)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("the end took %s", took)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(readFile(t, filepath.Join(e.dir, "work", "pid"))))
			if err != nil {
				t.Fatal(err)
			}
			if !isZombie(pid) {
				t.Errorf("process %d lives on", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
	}
}
