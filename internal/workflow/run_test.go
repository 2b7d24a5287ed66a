package workflow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
	"github.com/longshore-run/longshore/internal/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a Reporter that keeps everything and lets a test wait for text.
type recorder struct {
	mu     sync.Mutex
	states []string
	logs   map[int]*bytes.Buffer
	wake   chan struct{}
}

func newRecorder() *recorder {
	return &recorder{logs: map[int]*bytes.Buffer{}, wake: make(chan struct{}, 1)}
}

func (r *recorder) Step(index int, s api.StepStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, fmt.Sprintf("%d %s", index, s))
}

func (r *recorder) Output(index int) io.WriteCloser {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs[index] = &bytes.Buffer{}
	return recorderOutput{r, index}
}

type recorderOutput struct {
	r     *recorder
	index int
}

func (o recorderOutput) Write(b []byte) (int, error) {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	select {
	case o.r.wake <- struct{}{}:
	default:
	}
	return o.r.logs[o.index].Write(b)
}

func (o recorderOutput) Close() error { return nil }

func (r *recorder) log(index int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.logs[index] == nil {
		return ""
	}
	return r.logs[index].String()
}

func (r *recorder) waitFor(t *testing.T, index int, text string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(r.log(index), text) {
		select {
		case <-r.wake:
		case <-deadline:
			t.Errorf("step %d never said %q, only:\n%s", index, text, r.log(index))
			return
		}
	}
}

// job is a definition of the given scripts, from step 1 on.
func job(scripts ...string) workflow.Input {
	def := api.JobDefinition{Image: &api.DockerImage{Reference: "x"}, Steps: []api.Step{{Name: "Setup"}}}
	for i, s := range scripts {
		def.Steps = append(def.Steps, api.Step{Name: fmt.Sprintf("Step %d", i+1), Run: s})
	}
	return workflow.Input{
		Definition:  def,
		Environ:     []string{"PATH=" + os.Getenv("PATH")},
		ChangeGrace: 10 * time.Second,
	}
}

// run walks the plan of in. during, when not nil, is called beside it.
func run(t *testing.T, in workflow.Input, during func(r *recorder, cancel context.CancelCauseFunc)) (*recorder, workflow.Result) {
	t.Helper()
	if in.Directory == "" {
		in.Directory = t.TempDir()
	}
	private := t.TempDir()
	r := newRecorder()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var side sync.WaitGroup
	if during != nil {
		side.Go(func() { during(r, cancel) })
	}
	res := workflow.Run(ctx, workflow.NewPlan(in), workflow.Options{
		Reporter:   r,
		PrivateDir: private,
		EnvFile:    filepath.Join(private, "PULUMI_ENV"),
		KillGrace:  500 * time.Millisecond,
	})
	side.Wait()
	left, err := filepath.Glob(filepath.Join(private, "step-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("scripts were left behind: %v %v", left, err)
	}
	return r, res
}

func TestStepsRunInOrderInFreshShells(t *testing.T) {
	t.Parallel()
	r, res := run(t, job("X=1; echo one > file; echo out; echo err >&2; echo out", `echo "X=$X $(cat file)"`), nil)
	if res.Outcome != api.OutcomeSucceeded || res.Step != 2 || res.Message != "" {
		t.Errorf("result = %+v", res)
	}
	want := []string{"1 running", "1 succeeded", "2 running", "2 succeeded"}
	if diff := cmp.Diff(want, r.states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if got := r.log(1); !strings.HasSuffix(got, "out\nerr\nout\n") || !strings.HasPrefix(got, "$ X=1; echo one") {
		t.Errorf("log 1 = %q", got)
	}
	if got := r.log(2); got != "$ echo \"X=$X $(cat file)\"\nX= one\n" {
		t.Errorf("log 2 = %q", got)
	}
}

func TestAFailedStepEndsTheJobAndLaterOnesAreNotTouched(t *testing.T) {
	t.Parallel()
	r, res := run(t, job("true", "printf half; exit 3", "echo never"), nil)
	if res.Outcome != api.OutcomeStepFailed || res.Step != 2 || !strings.Contains(res.Message, "exited with code 3") {
		t.Errorf("result = %+v", res)
	}
	if diff := cmp.Diff([]string{"1 running", "1 succeeded", "2 running", "2 failed"}, r.states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if got := r.log(2); got != "$ printf half; exit 3\nhalf\nlongshore: the command exited with code 3\n" {
		t.Errorf("log = %q", got)
	}
}

func TestScriptsReachTheShellByteForByte(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "bash")
	for name, script := range map[string]string{
		"everything a shell reads":  "cat \"$0\" # $(echo no) `no` \"${x:-y}\" '\\n' \\\\ %s %d \t !! ~ * ? & ; | < > \\",
		"carriage returns":          "cat \"$0\" # a\r\n# b\r\n",
		"bytes that are not UTF-8":  "cat \"$0\" # \xff\xfe\x80 \xc3\x28\n",
		"no newline at the end":     "cat \"$0\"",
		"many newlines":             "cat \"$0\"\n\n\n",
		"here documents":            "cat \"$0\" - <<'EOF'\nEOF\n",
		"a script of a mebibyte":    "cat \"$0\"\nexit 0\n" + strings.Repeat("# padding\n", 100<<10),
		"something like a template": "cat \"$0\" # {{.Run}} ${{ x }} %(y)s\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, res := run(t, job(script), nil)
			if res.Outcome != api.OutcomeSucceeded {
				t.Fatalf("result = %+v, log %q", res, r.log(1))
			}
			first := "$ " + script
			if !strings.HasSuffix(first, "\n") {
				first += "\n"
			}
			if got := r.log(1); got != first+script {
				t.Errorf("log = %q\nwant %q", got, first+script)
			}
		})
	}
}

func TestTheScriptIsAPrivateFileAndNotAnArgument(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "bash")
	r, _ := run(t, job(`stat -c '%a' "$0" "$(dirname "$0")"; tr '\0' ' ' < /proc/$$/cmdline; read -r line; echo "stdin ended: $?"; ps -o pgid= -p $$ | tr -d ' '; echo $$`), nil)
	got := r.log(1)
	if !strings.Contains(got, "\n600\n700\n") {
		t.Errorf("modes of script and directory: %q", got)
	}
	if !strings.Contains(got, "stdin ended: 1") {
		t.Errorf("stdin was not empty: %q", got)
	}
	if strings.Count(got, "stat -c") != 1 {
		t.Errorf("the script shows in the command line: %q", got)
	}
	lines := strings.Split(strings.TrimSpace(got), "\n")
	if n := len(lines); lines[n-1] != lines[n-2] {
		t.Errorf("the shell %s is not the leader of its process group %s", lines[n-1], lines[n-2])
	}
}

func TestEnvironmentOfSteps(t *testing.T) {
	t.Parallel()
	in := job(`echo "A=$A B=$B TOKEN=$TOKEN"; echo A=2=2 >> "$PULUMI_ENV"; echo 'bad line' >> "$PULUMI_ENV"`,
		`echo "A=$A B=$B TOKEN=$TOKEN"; printf 'M<<E\nx\ny\nE\n' >> "$PULUMI_ENV"`, `echo "A=$A M=$M"`)
	in.Definition.Env = map[string]string{"A": "1", "B": "1", "TOKEN": "t"}
	in.Definition.EnvScopes = map[string][]int{"TOKEN": {1}}
	in.Env = map[string]string{"B": "agent"}
	r, res := run(t, in, nil)
	if res.Outcome != api.OutcomeSucceeded {
		t.Fatalf("result = %+v", res)
	}
	for i, want := range map[int]string{1: "\nA=1 B=agent TOKEN=t\n", 2: "\nA=2=2 B=agent TOKEN=\n", 3: "\nA=2=2 M=x\ny\n"} {
		if !strings.Contains(r.log(i), want) {
			t.Errorf("log %d = %q, want %q in it", i, r.log(i), want)
		}
	}
	if n := strings.Count(r.log(1)+r.log(2)+r.log(3), "line 2 is not of the form"); n != 1 {
		t.Errorf("the bad line was named %d times:\n%s", n, r.log(1))
	}
}

func TestTheJobMayChooseItsEnvFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "PULUMI_ENV")
	in := job("echo A=1 >> "+path, "echo A=$A")
	in.Definition.Env = map[string]string{"PULUMI_ENV": path}
	r, _ := run(t, in, nil)
	if !strings.Contains(r.log(2), "\nA=1\n") {
		t.Errorf("log = %q", r.log(2))
	}
}

func TestEnvFilesThatCannotBeUsedFailTheStep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ script, want string }{
		"too large":      {`head -c 1100000 /dev/zero >> "$PULUMI_ENV"`, "more than 1048576 bytes"},
		"a named pipe":   {`rm "$PULUMI_ENV"; mkfifo "$PULUMI_ENV"`, "not a regular file"},
		"a directory":    {`rm "$PULUMI_ENV"; mkdir "$PULUMI_ENV"`, "not a regular file"},
		"removed is all": {`rm "$PULUMI_ENV"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, res := run(t, job(c.script), nil)
			if c.want == "" {
				if res.Outcome != api.OutcomeSucceeded {
					t.Errorf("result = %+v", res)
				}
				return
			}
			if res.Outcome != api.OutcomeStepFailed || !strings.Contains(r.log(1), c.want) {
				t.Errorf("result = %+v, log %q", res, r.log(1))
			}
		})
	}
}

func TestShells(t *testing.T) {
	t.Parallel()
	bin := t.TempDir() // a place with sh and nothing else
	if err := os.Symlink(testkit.Path(t, "sh"), filepath.Join(bin, "sh")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		shell, script, wantLog string
		outcome                api.Outcome
	}{
		"bash is replaced by sh, and the log says so": {"bash", "echo hello", "longshore: bash is not installed here, using sh\nhello\n", api.OutcomeSucceeded},
		"no shell named is bash":                      {"", "echo hello", "longshore: bash is not installed here, using sh\nhello\n", api.OutcomeSucceeded},
		"another shell is not replaced":               {"zsh", "echo hello", `the shell "zsh" is not installed here`, api.OutcomeStepFailed},
		"a shell with arguments":                      {"sh -e", "false; echo never", "exited with code 1", api.OutcomeStepFailed},
		"a path":                                      {"/bin/sh", "echo hello", "\nhello\n", api.OutcomeSucceeded},
	} {
		t.Run(name, func(t *testing.T) {
			in := job(c.script)
			in.Environ = []string{"PATH=" + bin}
			in.Definition.Shell = c.shell
			r, res := run(t, in, nil)
			if res.Outcome != c.outcome || !strings.Contains(r.log(1), c.wantLog) {
				t.Errorf("result = %+v, log %q, want %s and %q", res, r.log(1), c.outcome, c.wantLog)
			}
		})
	}
}

func TestWorkingDirectories(t *testing.T) {
	t.Parallel()
	in := job("pwd -P; mkdir sub", "pwd -P", "pwd -P")
	in.Directory = filepath.Join(t.TempDir(), "made", "by", "the first step")
	in.Definition.Steps[2].WorkingDir = "sub"
	in.Definition.Steps[3].WorkingDir = "missing"
	r, res := run(t, in, nil)
	if res.Outcome != api.OutcomeStepFailed || res.Step != 3 || !strings.Contains(r.log(3), "missing does not exist") {
		t.Errorf("result = %+v, log %q", res, r.log(3))
	}
	if !strings.HasSuffix(r.log(1), "the first step\n") || !strings.HasSuffix(r.log(2), "the first step/sub\n") {
		t.Errorf("logs = %q, %q", r.log(1), r.log(2))
	}
}

func TestAStepLargerThanTheSystemAllows(t *testing.T) {
	t.Parallel()
	in := job("true")
	in.Definition.Env = map[string]string{"BIG": strings.Repeat("x", 1<<20)}
	r, res := run(t, in, nil)
	if res.Outcome != api.OutcomeStepFailed || !strings.Contains(r.log(1), "environment of this step is larger") {
		t.Errorf("result = %+v, log %q", res, r.log(1))
	}
}

func TestBackgroundProcessesOutliveTheirStepAndDoNotHoldItUp(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "setsid")
	start := time.Now()
	r, res := run(t, job(
		`setsid sh -c 'while :; do echo noise || exit; [ -e stop ] && exit; sleep 0.05; echo alive >> beats; done' & echo done`,
		`n=$(wc -l < beats); until [ "$(wc -l < beats)" -gt "$n" ]; do sleep 0.05; done; touch stop; echo still there`), nil)
	if res.Outcome != api.OutcomeSucceeded || !strings.HasSuffix(r.log(2), "still there\n") {
		t.Errorf("result = %+v, log %q", res, r.log(2))
	}
	if !strings.Contains(r.log(1), "a process in the background goes on") {
		t.Errorf("log = %q", r.log(1))
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestEverythingTheShellWroteIsReadWhenABackgroundProcessHoldsTheOutput(t *testing.T) {
	t.Parallel()
	r, res := run(t, job("(sleep 3) & seq 1 100000"), nil)
	if res.Outcome != api.OutcomeSucceeded || !strings.Contains(r.log(1), "\n100000\n") {
		t.Errorf("result = %+v, end of the log %q", res, r.log(1)[max(0, len(r.log(1))-100):])
	}
}

var errStop = errors.New("the deployment was cancelled")

func cancelAt(t *testing.T, text string) func(*recorder, context.CancelCauseFunc) {
	return func(r *recorder, cancel context.CancelCauseFunc) {
		r.waitFor(t, 1, text)
		cancel(errStop)
	}
}
