package executor_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/api"
)

// bin holds longshore-executor, and the stand-in under the name pulumi.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "executor-test-")
	if err != nil {
		panic(err)
	}
	bin = dir
	for name, pkg := range map[string]string{"longshore-executor": "../../cmd/executor", "pulumi": "../../e2e/standin"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("build %s: %v\n%s", pkg, err, out))
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// execution is one run of the built program.
type execution struct {
	t      *testing.T
	dir    string // holds the job file, the report, and work
	cmd    *exec.Cmd
	stderr *bytes.Buffer
}

// definition is a job of the given scripts, from step 1 on.
func definition(scripts ...string) api.JobDefinition {
	def := api.JobDefinition{
		OS: "linux", Architecture: "amd64", Shell: "bash",
		Image: &api.DockerImage{Reference: "image"},
		Steps: []api.Step{{Name: "Setup"}},
	}
	for i, s := range scripts {
		def.Steps = append(def.Steps, api.Step{Name: fmt.Sprintf("Step %d", i+1), Run: s})
	}
	return def
}

// start starts the program on a job. change, when not nil, may change the job
// file; command, when given, is what runs the program.
func start(t *testing.T, s *service, def api.JobDefinition, change func(*api.JobFile), command ...string) *execution {
	t.Helper()
	dir := t.TempDir()
	file := api.JobFile{
		ServiceURL: s.URL, JobID: "job-1", DeploymentID: "d-1", JobToken: jobToken,
		Definition:  def,
		Directory:   filepath.Join(dir, "work"),
		ReportPath:  filepath.Join(dir, "report.json"),
		ChangeGrace: api.Duration(20 * time.Second),
	}
	if change != nil {
		change(&file)
	}
	content, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return startRaw(t, dir, content, command...)
}

func startRaw(t *testing.T, dir string, jobFile []byte, command ...string) *execution {
	t.Helper()
	path := filepath.Join(dir, "job.json")
	if err := os.WriteFile(path, jobFile, 0o600); err != nil {
		t.Fatal(err)
	}
	argv := append(command, filepath.Join(bin, "longshore-executor"), "run", "--job-file", path)
	e := &execution{t: t, dir: dir, cmd: exec.Command(argv[0], argv[1:]...), stderr: &bytes.Buffer{}}
	e.cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir}
	e.cmd.Stderr = e.stderr
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.cmd.Process.Kill() })
	return e
}

// wait returns the exit code, and checks what must hold after every run.
func (e *execution) wait() int {
	e.t.Helper()
	_ = e.cmd.Wait()
	left, _ := filepath.Glob(filepath.Join(e.dir, "*"))
	for _, path := range left {
		name := filepath.Base(path)
		if name == api.SpoolName && !e.report().Delivered {
			continue
		}
		if name != "report.json" && name != "work" && !strings.HasPrefix(name, "kept") {
			e.t.Errorf("the executor left %s behind", name)
		}
	}
	return e.cmd.ProcessState.ExitCode()
}

func (e *execution) report() api.Report {
	e.t.Helper()
	content, err := os.ReadFile(filepath.Join(e.dir, "report.json"))
	if errors.Is(err, os.ErrNotExist) {
		return api.Report{}
	}
	var r api.Report
	if err == nil {
		err = json.Unmarshal(content, &r)
	}
	if err != nil {
		e.t.Errorf("report: %v", err)
	}
	return r
}

// await polls what another process does until a condition holds.
func (e *execution) await(what string, met func() bool) {
	e.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for !met() {
		select {
		case <-tick.C:
		case <-timeout:
			e.t.Fatalf("gave up waiting for %s\n%s", what, e.stderr)
		}
	}
}

func (e *execution) signal(sig syscall.Signal) {
	e.t.Helper()
	if err := e.cmd.Process.Signal(sig); err != nil {
		e.t.Errorf("signal: %v", err)
	}
}

// expect checks the end of a run.
func (e *execution) expect(code int, outcome api.Outcome, delivered bool) {
	e.t.Helper()
	if got := e.wait(); got != code {
		e.t.Errorf("exit code = %d, want %d\n%s", got, code, e.stderr)
	}
	if r := e.report(); r.Outcome != outcome || r.Delivered != delivered {
		e.t.Errorf("report = %+v, want outcome %s and delivered %t", r, outcome, delivered)
	}
}

func runCommand(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}
