package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestMain lets the test binary be the program itself.
func TestMain(m *testing.M) {
	if os.Getenv("LONGSHORE_TEST_MAIN") != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"dev", "--help"}} {
		var stdout bytes.Buffer
		if exit := run(t.Context(), args, nil, &stdout, io.Discard); exit != 0 {
			t.Fatalf("%q exits with %d", args, exit)
		}
		golden := filepath.Join("testdata", strings.Trim(strings.Join(args, "-"), "-")+".txt")
		if *update {
			check(t, os.WriteFile(golden, stdout.Bytes(), 0o644))
		}
		want, err := os.ReadFile(golden)
		check(t, err)
		if stdout.String() != string(want) {
			t.Errorf("%q differs from %s: see with git diff after go test ./cmd/server -update", args, golden)
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { taken.Close() })
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	noKey := t.TempDir()
	check(t, os.WriteFile(filepath.Join(noKey, "longshore.db"), nil, 0o600))
	shortKey := t.TempDir()
	check(t, os.WriteFile(filepath.Join(shortKey, "secrets.key"), []byte("short"), 0o600))

	for name, tc := range map[string]struct {
		args, environ []string
		exit          int
		stdout        string
		stderr        []string // every line
	}{
		"version":            {[]string{"version"}, nil, 0, "longshore-server dev (", nil},
		"--version":          {[]string{"--version"}, nil, 0, "longshore-server dev\n", nil},
		"completion":         {[]string{"completion", "bash"}, nil, 0, "__start_longshore-server", nil},
		"an unknown command": {[]string{"walk"}, nil, 2, "", []string{`unknown command "walk"`}},
		"an unknown flag":    {[]string{"serve", "--walk"}, nil, 2, "", []string{"unknown flag: --walk"}},
		"an argument":        {[]string{"serve", "walk"}, nil, 2, "", []string{`unknown command "walk"`}},
		"every mistake at once, with where it was made": {
			[]string{"dev", "--listen=8480", "--heartbeat-timeout=soon", "--claim-timeout=-1s", "--data-dir=", "--concurrency=0", "--log-level=loud", "--cache-url=/var/cache", "--cache-scope=all", "--cache-max-entry=much", "--cache-max-project=0", "--cache-unread=never"},
			[]string{"LONGSHORE_SERVER_PUBLIC_URL=example.com", "LONGSHORE_SERVER_DEPLOY_TARGET=ecs", "LONGSHORE_SERVER_ORGANIZATION=a/b", "LONGSHORE_SERVER_LISTEN=also wrong, and not looked at"},
			2, "",
			[]string{
				`--listen: "8480" is no address: want HOST:PORT`,
				`LONGSHORE_SERVER_PUBLIC_URL: "example.com" is no base URL`,
				"--data-dir: missing",
				`LONGSHORE_SERVER_ORGANIZATION: "a/b" is no name`,
				`--heartbeat-timeout: "soon": want a duration`,
				`--claim-timeout: "-1s": want a duration`,
				"--cache-url: no bucket: want off, file:///folder",
				`--cache-scope: "all" is no scope: want stack or project`,
				`--cache-max-entry: "much": want a size`,
				`--cache-max-project: "0": want a size`,
				`--cache-unread: "never": want a duration`,
				"--log-level: ",
				`LONGSHORE_SERVER_DEPLOY_TARGET: "ecs" is no target`,
				`--concurrency: "0": want a number`,
			},
		},
		"a taken port": {
			[]string{"serve", "--data-dir", t.TempDir(), "--listen", taken.Addr().String()},
			nil, 1, "",
			[]string{taken.Addr().String() + " is taken: stop what listens there, or choose another"},
		},
		"an address of another host": {
			[]string{"serve", "--data-dir", t.TempDir(), "--listen", "192.0.2.1:0"},
			nil, 1, "",
			[]string{"192.0.2.1:0 is no address of this host"},
		},
		"a data directory that is a file": {
			[]string{"serve", "--listen=127.0.0.1:0", "--data-dir", file},
			nil, 1, "",
			[]string{"data directory " + file + " cannot be used"},
		},
		"a token file that cannot be": {
			[]string{"serve", "--listen=127.0.0.1:0", "--data-dir", t.TempDir(), "--token-file", file + "/x"},
			nil, 1, "",
			[]string{"token file " + file + "/x cannot be written"},
		},
		"a cache that is a file": {
			[]string{"serve", "--listen=127.0.0.1:0", "--data-dir", t.TempDir(), "--cache-url", "file://" + file},
			nil, 1, "",
			[]string{"dependency cache: mkdir " + file},
		},
		"a bucket of a cloud without its program": {
			[]string{"serve", "--listen=127.0.0.1:0", "--data-dir", t.TempDir(), "--cache-url", "s3://bucket"},
			nil, 1, "",
			[]string{"buckets of clouds are opened by longshore-bucket, which is neither beside this program nor on the PATH"},
		},
		"a database without its key": {
			[]string{"serve", "--listen=127.0.0.1:0", "--data-dir", noKey},
			nil, 1, "",
			[]string{filepath.Join(noKey, "secrets.key") + " is missing"},
		},
		"a key that is none": {
			[]string{"serve", "--listen=127.0.0.1:0", "--data-dir", shortKey},
			nil, 1, "",
			[]string{"has 5 bytes instead of 32: restore it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			exit := run(t.Context(), tc.args, tc.environ, &stdout, &stderr)
			if exit != tc.exit || !strings.Contains(stdout.String(), tc.stdout) {
				t.Errorf("exit status %d, want %d\nstdout: %.200s\nwant %q\nstderr: %s", exit, tc.exit, &stdout, tc.stdout, &stderr)
			}
			lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
			if len(tc.stderr) > 0 && len(lines) != len(tc.stderr) {
				t.Fatalf("stderr has %d lines, want %d:\n%s", len(lines), len(tc.stderr), &stderr)
			}
			for i, want := range tc.stderr {
				if !strings.HasPrefix(lines[i], "longshore-server: ") || !strings.Contains(lines[i], want) {
					t.Errorf("line %d of stderr is %q, want %q", i+1, lines[i], want)
				}
			}
		})
	}
}

func TestDirectoryOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := filepath.Join(t.TempDir(), "data")
	check(t, os.Mkdir(dir, 0o500))
	var stderr bytes.Buffer
	if exit := run(t.Context(), []string{"serve", "--listen=127.0.0.1:0", "--data-dir", dir}, nil, io.Discard, &stderr); exit != 1 ||
		!strings.Contains(stderr.String(), "data directory "+dir+" is not writable for this user") {
		t.Errorf("exit status %d, %s", exit, &stderr)
	}
}

// process is the real program.
type process struct {
	*exec.Cmd
	url    string
	lines  []string // of stdout, up to the one with the URL
	stderr bytes.Buffer
	output chan struct{} // closed at the end of stdout
}

// start starts the program and waits until it listens.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startProgram(t, os.Args[0], args...)
}

func startProgram(t *testing.T, path string, args ...string) *process {
	t.Helper()
	return startWith(t, path, nil, args...)
}

func startWith(t *testing.T, path string, environ []string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	p := &process{Cmd: exec.CommandContext(ctx, path, append(args, "--listen=127.0.0.1:0")...), output: make(chan struct{})}
	p.Env = append([]string{"LONGSHORE_TEST_MAIN=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, environ...)
	p.Stderr = &p.stderr
	pipe, err := p.StdoutPipe()
	check(t, err)
	check(t, p.Start())
	scanner := bufio.NewScanner(pipe)
	for p.url == "" && scanner.Scan() {
		p.lines = append(p.lines, scanner.Text())
		p.url, _ = strings.CutPrefix(scanner.Text(), "listening on ")
		if !strings.HasPrefix(p.url, "http://") {
			p.url = ""
		}
	}
	if p.url == "" {
		t.Fatalf("the program does not listen: %v\n%s", p.Wait(), &p.stderr)
	}
	go func() {
		defer close(p.output)
		_, _ = io.Copy(io.Discard, pipe)
	}()
	return p
}

// end wants the program to end with status 0.
func (p *process) end(t *testing.T) {
	t.Helper()
	<-p.output
	if err := p.Wait(); err != nil {
		t.Errorf("the program ended with %v, want status 0\n%s", err, &p.stderr)
	}
}

// call sends a request and decodes the answer.
func (p *process) call(t *testing.T, method, path, token, body string, header http.Header, out any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, strings.NewReader(body))
	check(t, err)
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Authorization", "token "+token)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return resp.StatusCode
}

func TestFirstStartPrintsTheTokenOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, "serve", "--data-dir", dir)
	token, found := strings.CutPrefix(p.lines[0], "user token (shown this once): ")
	if !found || p.call(t, "GET", "/api/user", token, "", nil, nil) != http.StatusOK {
		t.Errorf("stdout %q, want a token that opens", p.lines)
	}

	var stderr bytes.Buffer
	if exit := run(t.Context(), []string{"serve", "--listen=127.0.0.1:0", "--data-dir", dir}, nil, io.Discard, &stderr); exit != 1 ||
		strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), fmt.Sprintf("in use by another longshore-server (process %d", p.Process.Pid)) {
		t.Errorf("a second server ends with status %d and says %q, want one line with who has the directory", exit, &stderr)
	}
	check(t, p.Process.Signal(syscall.SIGTERM))
	p.end(t)
	if strings.Contains(p.stderr.String(), "lsu-") {
		t.Errorf("the log shows the token:\n%s", &p.stderr)
	}

	again := start(t, "serve", "--data-dir", dir)
	if len(again.lines) != 1 || again.call(t, "GET", "/api/user", token, "", nil, nil) != http.StatusOK {
		t.Errorf("the second start prints %q, want no token, and the first one to live", again.lines)
	}
	check(t, again.Process.Signal(os.Interrupt))
	again.end(t)
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	p := start(t, "serve", "--data-dir", filepath.Join(dir, "data"), "--token-file", file)
	token, err := os.ReadFile(file)
	check(t, err)
	info, err := os.Stat(file)
	check(t, err)
	if info.Mode().Perm() != 0o600 || len(p.lines) != 1 {
		t.Errorf("mode %v and output %q, want 0600 and no token printed", info.Mode(), p.lines)
	}
	if code := p.call(t, "GET", "/api/user", strings.TrimSpace(string(token)), "", nil, nil); code != http.StatusOK {
		t.Errorf("the token in the file answers %d", code)
	}
	for _, name := range []string{"longshore.db", "secrets.key", "urls.key"} {
		if info, err := os.Stat(filepath.Join(dir, "data", name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v, want mode 0600", name, info.Mode(), err)
		}
	}
	check(t, p.Process.Signal(syscall.SIGTERM))
	p.end(t)
}

// TestSignalEndsHeldPoll: a stop does not wait for the minute of a long poll.
func TestSignalEndsHeldPoll(t *testing.T) {
	t.Parallel()
	p := start(t, "serve", "--data-dir", t.TempDir())
	token := strings.TrimPrefix(p.lines[0], "user token (shown this once): ")
	var pool struct{ TokenValue string }
	p.call(t, "POST", "/api/orgs/default/agent-pools", token, `{"name":"a"}`, nil, &pool)
	answer := make(chan int, 1)
	go func() {
		answer <- p.call(t, "GET", "/api/deployments/poll", pool.TokenValue, "", http.Header{"Prefer": {"wait=60"}}, nil)
	}()
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(p.metrics(t), "longshore_server_http_requests_held 1") {
		if time.Now().After(deadline) {
			t.Fatal("the poll is not held")
		}
		time.Sleep(5 * time.Millisecond) // polls a condition
	}
	began := time.Now()
	check(t, p.Process.Signal(syscall.SIGTERM))
	if code := <-answer; code != http.StatusNoContent {
		t.Errorf("held poll = %d, want 204", code)
	}
	p.end(t)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

func (p *process) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(p.url + "/metrics")
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	return string(text)
}

// TestDev runs a deployment of one pre-run command, as a process of this host,
// with the executor built for it.
func TestDev(t *testing.T) {
	t.Parallel()
	bin, dir := t.TempDir(), filepath.Join(t.TempDir(), ".longshore")
	for name, pkg := range map[string]string{"longshore-server": ".", "longshore-executor": "../executor"} {
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", pkg, err, out)
		}
	}
	p := startProgram(t, filepath.Join(bin, "longshore-server"), "dev", "--data-dir", dir, "--deploy-target=process")
	user, err := os.ReadFile(filepath.Join(dir, "user-token"))
	check(t, err)
	token := strings.TrimSpace(string(user))
	const stack = "/api/stacks/default/shop/dev/deployments"
	var made struct{ ID string }
	p.call(t, "POST", stack, token, `{"operation":"update","operationContext":{"options":{"skipInstallDependencies":true},"preRunCommands":["echo state in $PULUMI_BACKEND_URL; exit 3"]}}`, nil, &made)
	var deployment struct{ Status string }
	for deadline := time.Now().Add(40 * time.Second); deployment.Status != "failed"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the deployment is %s\n%s", deployment.Status, &p.stderr)
		}
		p.call(t, "GET", stack+"/"+made.ID, token, "", nil, &deployment)
	}
	var logs struct{ Lines []struct{ Line string } }
	p.call(t, "GET", stack+"/"+made.ID+"/logs", token, "", nil, &logs)
	if text := fmt.Sprintf("%q", logs.Lines); !strings.Contains(text, "state in file://"+dir+"/state") {
		t.Errorf("log %v, want the command's output, with the state below the data directory", text)
	}
	began := time.Now()
	check(t, p.Process.Signal(syscall.SIGTERM))
	p.end(t)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("an idle dev took %v to stop", took)
	}

	before, err := os.ReadFile(filepath.Join(dir, "pool-token"))
	check(t, err)
	again := startProgram(t, filepath.Join(bin, "longshore-server"), "dev", "--data-dir", dir, "--deploy-target=process")
	after, err := os.ReadFile(filepath.Join(dir, "pool-token"))
	check(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the second start made another pool")
	}
	check(t, again.Process.Signal(syscall.SIGTERM))
	again.end(t)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
