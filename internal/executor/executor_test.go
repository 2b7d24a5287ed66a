package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/logstream"
	"github.com/longshore-run/longshore/internal/testkit"
)

func TestAJobThatSucceeds(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition(
		`echo "FROM_ONE=1=2" >> "$PULUMI_ENV"; pwd -P > where; echo out; echo err >&2; printf 'progress 1\rprogress 2\n'`,
		`echo "$FROM_ONE"; cat where; "$LONGSHORE_EXECUTOR" version`,
		`printf 'no newline'`), nil)
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
	want := []string{"0 succeeded", "1 running", "1 succeeded", "2 running", "2 succeeded", "3 running", "3 succeeded"}
	if diff := cmp.Diff(want, s.reported()); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if got := s.log(1); !strings.HasSuffix(got, "out\nerr\nprogress 1\rprogress 2\n") {
		t.Errorf("log 1 = %q", got)
	}
	if got := s.log(2); !strings.HasSuffix(got, "\n1=2\n"+e.dir+"/work\ndev\n") {
		t.Errorf("log 2 = %q", got)
	}
	if got := s.log(3); !strings.HasSuffix(got, "\nno newline") && !strings.HasSuffix(got, "\nno newline\n") {
		t.Errorf("log 3 = %q", got)
	}
	if r := e.report(); r.Step != 3 || r.Status != api.StepSucceeded || r.Message != "" {
		t.Errorf("report = %+v", r)
	}
}

func TestAJobOfSetupAlone(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition(), nil)
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
	if diff := cmp.Diff([]string{"0 succeeded"}, s.reported()); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
}

func TestAStepThatFails(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition("true", "exit 10", "echo never"), nil)
	e.expect(api.ExitStepFailed, api.OutcomeStepFailed, true)
	want := []string{"0 succeeded", "1 running", "1 succeeded", "2 running", "2 failed"}
	if diff := cmp.Diff(want, s.reported()); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if r := e.report(); r.Step != 2 || r.Status != api.StepFailed || !strings.Contains(r.Message, "exited with code 10") {
		t.Errorf("report = %+v", r)
	}
}

func TestEvilScriptsArriveByteForByte(t *testing.T) {
	t.Parallel()
	s := newService(t)
	// JSON carries text: what is not UTF-8 cannot come from a definition.
	script := "cat \"$0\" # $(echo no) `no` \"${x:-y}\" '\\n' \\\\ %s {{.Run}} \t ü € \U0001F6A2\r\n# <&>\u2028\n"
	e := start(t, s, definition(script), nil)
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
	if got := s.log(1); got != "$ "+script+script {
		t.Errorf("log = %q\nwant  %q", got, "$ "+script+script)
	}
}

func TestBadDefinitions(t *testing.T) {
	t.Parallel()
	long := definition()
	for range api.MaxSteps + 9000 {
		long.Steps = append(long.Steps, api.Step{Name: "x", Run: "true"})
	}
	for name, c := range map[string]struct {
		def  any
		want string
		step string
	}{
		"no image":             {map[string]any{"steps": definition("true").Steps}, "image: missing", "1 failed"},
		"a NUL in a script":    {definition("a\x00b"), "steps[1].run", "1 failed"},
		"ten thousand steps":   {long, "steps: 10001 are more", "1 failed"},
		"another system":       {map[string]any{"os": "windows", "image": "x", "steps": definition("true").Steps}, "os: ", "1 failed"},
		"a variable's name":    {map[string]any{"image": "x", "env": map[string]string{"A=B": ""}, "steps": definition("true").Steps}, "A=B", "1 failed"},
		"no steps":             {map[string]any{"image": "x"}, "steps: missing", "0 failed"},
		"a timeout of nothing": {map[string]any{"image": "x", "timeout": "soon"}, "duration", "0 failed"},
		"env of numbers":       {map[string]any{"image": "x", "env": map[string]int{"PASSWORD": 12345}}, "env", "0 failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			dir := t.TempDir()
			content, err := json.Marshal(map[string]any{
				"serviceURL": s.URL, "jobID": "job-1", "jobToken": jobToken,
				"reportPath": filepath.Join(dir, "report.json"), "definition": c.def,
			})
			if err != nil {
				t.Fatal(err)
			}
			e := startRaw(t, dir, content)
			e.expect(api.ExitBadDefinition, api.OutcomeBadDefinition, true)
			log := s.log(0) + s.log(1)
			if !strings.Contains(log, c.want) || strings.Contains(log, "12345") {
				t.Errorf("log = %q, want %q in it", log, c.want)
			}
			if diff := cmp.Diff([]string{"0 succeeded", c.step}, s.reported()); diff != "" {
				t.Errorf("statuses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJobFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ content, want string }{
		"no JSON":    {"{", "unexpected end"},
		"no service": {`{"jobID":"a","jobToken":"b"}`, "serviceURL"},
		"bad URL":    {`{"serviceURL":"ftp://x","jobID":"a","jobToken":"b"}`, "serviceURL"},
		"too large":  {`"` + strings.Repeat("x", 9<<20), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			e := startRaw(t, dir, []byte(c.content))
			_ = e.cmd.Wait()
			if code := e.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(e.stderr.String(), c.want) {
				t.Errorf("exit code %d, stderr %q; want 1 and %q", code, e.stderr, c.want)
			}
		})
	}
}

func TestNothingSecretIsLeftForSteps(t *testing.T) {
	t.Parallel()
	const (
		scoped = "git-credential-s3cret-1"
		oidc   = "oidc-t0ken-s3cret-2"
		user   = "user-s3cret-3"
	)
	s := newService(t)
	def := definition(
		`echo "scoped: $LONGSHORE_GIT_TOKEN"`,
		// Every process that this user can see, but not the test's own files.
		`cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' > ../kept-processes
		 ls -a .. > ../kept-files; cat "$PULUMI_OIDC_TOKEN_FILE" > ../kept-oidc; stat -c %a "$PULUMI_OIDC_TOKEN_FILE"
		 cat /proc/$LONGSHORE_EXECUTOR_PID/environ > /dev/null || echo "environ of the executor is closed"
		 echo "plain $USER_SECRET, in base64 $(printf %s "$USER_SECRET" | base64), oidc $PULUMI_OIDC_TOKEN"
		 echo "MY_API_KEY=exported-s3cret-4" >> "$PULUMI_ENV"`,
		`echo "exported: $MY_API_KEY"`)
	def.Env = map[string]string{"LONGSHORE_GIT_TOKEN": scoped, "USER_SECRET": user, "PLAIN": "visible"}
	def.EnvScopes = map[string][]int{"LONGSHORE_GIT_TOKEN": {1}}
	def.SecretEnv = []string{"LONGSHORE_GIT_TOKEN", "USER_SECRET"}
	e := start(t, s, def, func(f *api.JobFile) { f.OIDCToken = oidc })
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
	processes, err := os.ReadFile(filepath.Join(e.dir, "kept-processes"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(processes), user) {
		t.Error("the probe did not see the step's own environment")
	}
	for _, secret := range []string{jobToken, scoped} {
		if strings.Contains(string(processes), secret) {
			t.Errorf("%s shows in a command line or environment", secret)
		}
	}
	if files, _ := os.ReadFile(filepath.Join(e.dir, "kept-files")); strings.Contains(string(files), "job.json") {
		t.Errorf("the job file is still there: %s", files)
	}
	if got, _ := os.ReadFile(filepath.Join(e.dir, "kept-oidc")); string(got) != oidc {
		t.Errorf("oidc file = %q", got)
	}
	log := s.log(1) + s.log(2) + s.log(3)
	for _, secret := range []string{scoped, oidc, user, "dXNlci1zM2NyZXQtMw"} {
		if strings.Contains(log, secret) {
			t.Errorf("%s shows in the log:\n%s", secret, log)
		}
	}
	if strings.Contains(s.log(3), "exported-s3cret-4") {
		t.Errorf("an exported secret shows in the log: %s", s.log(3))
	}
	if !strings.Contains(log, "\n600\n") {
		t.Errorf("mode of the OIDC file: %s", log)
	}
	if os.Geteuid() != 0 && !strings.Contains(log, "environ of the executor is closed") {
		t.Errorf("the executor's environment can be read: %s", log)
	}
}

func TestAServiceThatDoesNotNameSecretsGetsThemGuessed(t *testing.T) {
	t.Parallel()
	s := newService(t)
	def := definition(`env | grep _X; echo "$PLAIN"`)
	def.Env = map[string]string{"PLAIN": "shown", "TOKEN_X": "value-1", "DB_PASSWORD_X": "value-2", "aws_secret_X": "value-3"}
	e := start(t, s, def, func(f *api.JobFile) { f.Env = map[string]string{"FORWARDED_TOKEN_X": "value-4"} })
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
	if log := s.log(1); strings.Contains(log, "value-") || !strings.Contains(log, "shown") {
		t.Errorf("log = %s", log)
	}
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition("until [ -e stop ]; do sleep 0.02; done"), func(f *api.JobFile) {
		f.HeartbeatInterval = api.Duration(20 * time.Millisecond)
	})
	s.await("three heartbeats", func() bool { return s.beats >= 3 })
	if err := os.WriteFile(filepath.Join(e.dir, "work", "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
}

func TestAServiceThatEndedTheJobStopsIt(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition("echo ready; sleep 60", "echo never"), func(f *api.JobFile) {
		f.HeartbeatInterval = api.Duration(20 * time.Millisecond)
	})
	s.awaitLog(1, "\nready\n")
	s.set(func() { s.gone = true })
	e.expect(api.ExitCancelled, api.OutcomeCancelled, false)
	if r := e.report(); !strings.Contains(r.Message, "the service has ended this job") {
		t.Errorf("report = %+v", r)
	}
}

func TestAServiceThatIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition("echo before; until [ -e away ]; do sleep 0.02; done; seq 1 20000; echo during > done", "echo second"), nil)
	s.awaitLog(1, "\nbefore\n")
	s.set(func() { s.away = true })
	if err := os.WriteFile(filepath.Join(e.dir, "work", "away"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The job goes on to its end while nobody listens.
	s.await("some refused calls", func() bool { return s.refused >= 3 })
	e.await("the end of the steps", func() bool { return e.report().Outcome != "" })
	if r := e.report(); r.Outcome != api.OutcomeSucceeded || r.Delivered {
		t.Errorf("report = %+v, want succeeded and not delivered", r)
	}
	s.set(func() { s.away = false })
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
	if !strings.HasSuffix(s.log(1), "\n19999\n20000\n") || strings.Count(s.log(1), "\n") != 20002 {
		t.Errorf("log of %d lines ends with %q", strings.Count(s.log(1), "\n"), s.log(1)[len(s.log(1))-50:])
	}
	want := []string{"0 succeeded", "1 running", "1 succeeded", "2 running", "2 succeeded"}
	if diff := cmp.Diff(want, s.reported()); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
}

func TestAServiceThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.away = true
	e := start(t, s, definition("echo unheard"), func(f *api.JobFile) { f.DeliverTimeout = api.Duration(300 * time.Millisecond) })
	// The work is done, and the report says so: the agent may be luckier.
	e.expect(api.ExitServiceLost, api.OutcomeSucceeded, false)
	s.set(func() { s.away = false })
	e.push(s)
	if got := s.log(1); got != "$ echo unheard\nunheard\n" {
		t.Errorf("log = %q", got)
	}
}

// push delivers what the executor left, as an agent would.
func (e *execution) push(s *service) {
	e.t.Helper()
	c, err := client.New(client.Options{BaseURL: s.URL})
	if err != nil {
		e.t.Fatal(err)
	}
	defer c.CloseIdle()
	spool := filepath.Join(e.dir, api.SpoolName)
	streams, err := logstream.Resume(logstream.Options{Sink: c.Job("job-1", jobToken), SpoolDir: spool})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.t.Context()), time.Minute)
	defer cancel()
	if err := streams.Close(ctx); err != nil {
		e.t.Errorf("deliver the rest: %v", err)
	}
	if _, err := os.Stat(spool); !errors.Is(err, os.ErrNotExist) {
		e.t.Errorf("the spool is still there: %v", err)
	}
}

// TestAKilledExecutorLeavesItsSpool: what lay in memory is a gap that says so.
func TestAKilledExecutorLeavesItsSpool(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition("echo before; until [ -e away ]; do sleep 0.02; done; seq 1 600000; echo > done; while kill -0 $LONGSHORE_EXECUTOR_PID; do sleep 0.1; done"), nil)
	s.awaitLog(1, "\nbefore\n")
	s.set(func() { s.away, s.gaps = true, true })
	if err := os.WriteFile(filepath.Join(e.dir, "work", "away"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e.await("the end of the output", func() bool { _, err := os.Stat(filepath.Join(e.dir, "work", "done")); return err == nil })
	if err := syscall.Kill(-e.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = e.cmd.Wait()
	s.set(func() { s.away = false })
	e.push(s)
	_, log, _ := strings.Cut(s.log(1), "\nbefore\n")
	next, missing := 1, 0
	for line := range strings.Lines(log) {
		var n int
		if k, _ := fmt.Sscanf(line, "[longshore: %d lines of this log are missing: they were lost with the program", &n); k == 1 {
			next, missing = next+n, missing+n
			continue
		}
		if strings.HasPrefix(line, "[longshore: lines may be missing here") {
			break
		}
		if line != fmt.Sprintf("%d\n", next) {
			t.Fatalf("line %q, want number %d", line, next)
		}
		next++
	}
	// Memory holds 4 MiB, which is some 90 000 lines of these.
	if next < 300_000 || missing == 0 || missing > 200_000 || !strings.HasSuffix(log, "was killed]\n") {
		t.Errorf("up to number %d, %d missing, and at the end %q", next, missing, log[max(0, len(log)-100):])
	}
}

func TestTimeoutOfAStepAndOfTheJob(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*api.JobFile){
		"a step's, from the definition": func(f *api.JobFile) { f.Definition.Steps[1].Timeout = api.Duration(200 * time.Millisecond) },
		"a step's, from the agent":      func(f *api.JobFile) { f.StepTimeout = api.Duration(200 * time.Millisecond) },
		"the job's, from the agent":     func(f *api.JobFile) { f.Timeout = api.Duration(200 * time.Millisecond) },
		"the job's, from the definition": func(f *api.JobFile) {
			f.Timeout, f.Definition.Timeout = api.Duration(time.Hour), api.Duration(200*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			e := start(t, s, definition("sleep 60", "echo never"), change)
			e.expect(api.ExitTimedOut, api.OutcomeTimedOut, true)
			if diff := cmp.Diff([]string{"0 succeeded", "1 running", "1 failed"}, s.reported()); diff != "" {
				t.Errorf("statuses (-want +got):\n%s", diff)
			}
			if !strings.Contains(s.log(1), "longer than its timeout of 200ms") {
				t.Errorf("log = %s", s.log(1))
			}
		})
	}
}

func TestAStepWithoutOutputIsEnded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition("sleep 60", "echo never"), func(f *api.JobFile) { f.IdleTimeout = api.Duration(300 * time.Millisecond) })
	e.expect(api.ExitTimedOut, api.OutcomeTimedOut, true)
	if !strings.Contains(s.log(1), "longshore: no output for 300ms: sent an interrupt") {
		t.Errorf("log = %s", s.log(1))
	}
}

func TestZombiesAreReapedAndNoStatusIsStolen(t *testing.T) {
	t.Parallel()
	s := newService(t)
	script := `for i in $(seq 50); do (sh -c 'sleep 0.01 & exit 0' &); done; wait
for try in $(seq 200); do
  n=$(cat /proc/[0-9]*/stat 2>/dev/null | awk -v p="$LONGSHORE_EXECUTOR_PID" '{ sub(/.*\) /, ""); if ($1 == "Z" && $2 == p) n++ } END { print n+0 }')
  [ "$n" = 0 ] && break; sleep 0.05
done
echo "zombies: $n"; exit 42`
	e := start(t, s, definition(script), nil)
	e.expect(api.ExitStepFailed, api.OutcomeStepFailed, true)
	if log := s.log(1); !strings.Contains(log, "\nzombies: 0\n") || !strings.Contains(log, "exited with code 42") {
		t.Errorf("log = %s", log)
	}
}

func TestAsProcessOne(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "root")
	unshare := testkit.Path(t, "unshare")
	if os.Getenv("LONGSHORE_REQUIRE") == "" {
		if out, err := runCommand(unshare, "--pid", "--fork", "--mount-proc", "true"); err != nil {
			t.Skipf("needs PID namespaces: %v: %s", err, out)
		}
	}
	s := newService(t)
	def := definition(
		`echo "executor is $LONGSHORE_EXECUTOR_PID"; for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.01 &); done; sleep 0.5
ps -e -o stat= | grep -c Z; setsid sh -c 'trap "" INT TERM; while :; do sleep 0.05; done' & echo left; exit 0`,
		`exit 3`)
	e := start(t, s, def, nil, unshare, "--pid", "--fork", "--mount-proc", "--kill-child")
	e.expect(api.ExitStepFailed, api.OutcomeStepFailed, true)
	if log := s.log(1); !strings.Contains(log, "executor is 1\n0\nleft\n") {
		t.Errorf("log = %s", log)
	}
	_ = os.Remove("/PULUMI_ENV") // a process 1 takes the documented path
}

func TestOneHugeLineTakesLittleMemory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("moves 256 MiB")
	}
	s := newService(t)
	const size = 256 << 20
	bytes := int64(0)
	first := true
	s.digest = func(step int, text string) {
		if first { // the command
			first = false
			return
		}
		if len(text) > api.MaxLineBytes {
			t.Errorf("a line of %d bytes", len(text))
		}
		bytes += int64(strings.Count(text, "x"))
	}
	def := definition(fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; grep VmHWM /proc/$LONGSHORE_EXECUTOR_PID/status > ../kept-memory", size))
	def.Env = map[string]string{"SOME_TOKEN": "a-secret-to-look-for"}
	e := start(t, s, def, nil)
	e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
	if bytes != size {
		t.Errorf("%d bytes arrived, want %d", bytes, size)
	}
	fields := strings.Fields(readFile(t, filepath.Join(e.dir, "kept-memory")))
	if kb, err := strconv.Atoi(fields[1]); err != nil || kb > 64<<10 {
		t.Errorf("the executor took %v kB at most, want below 64 MiB (%v)", fields[1], err)
	} else {
		t.Logf("resident at most: %d kB", kb)
	}
}

func TestTheCacheOfTheAgent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := start(t, s, definition(`stat -c 'mode %a' "$LONGSHORE_CACHE_FILE"; cat "$LONGSHORE_CACHE_FILE"; echo; env | grep -c lsc-`), func(f *api.JobFile) {
		f.Cache = &api.JobCache{URL: "http://127.0.0.1:1", Token: "lsc-secret", Stack: "acme/shop/dev"}
	})
	e.expect(api.ExitStepFailed, api.OutcomeStepFailed, true) // grep has found nothing
	log := s.log(1)
	if !strings.Contains(log, "mode 600\n") || !strings.Contains(log, `"stack":"acme/shop/dev"`) || !strings.Contains(log, "\n0\n") {
		t.Errorf("log %q, want a file for this user alone and no variable with the token", log)
	}
	if strings.Contains(log, "lsc-secret") {
		t.Errorf("log %q shows the token", log)
	}
}

func TestWhatTheCacheDidIsInTheReport(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script string
		want   api.CacheOutcomes
	}{
		"an outcome": {
			`echo '{"outcomes":[{"action":"save","manager":"go","result":"saved","bytes":5,"took":"2s"}]}' > "$LONGSHORE_CACHE_STATE"`,
			api.CacheOutcomes{{Action: api.CacheSave, Manager: "go", Result: api.CacheSaved, Bytes: 5, Took: api.Duration(2 * time.Second)}},
		},
		"nothing":               {"true", nil},
		"a pipe does not block": {`mkfifo "$LONGSHORE_CACHE_STATE"`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, newService(t), definition(tc.script), nil)
			e.expect(api.ExitSucceeded, api.OutcomeSucceeded, true)
			if diff := cmp.Diff(tc.want, e.report().Cache); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}
