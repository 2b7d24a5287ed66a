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
	"net/http/httptest"
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

func TestExitCodes(t *testing.T) {
	t.Parallel()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"code":401,"message":"unknown token"}`)
	}))
	t.Cleanup(refusing.Close)
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	port := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	for name, tc := range map[string]struct {
		args   []string
		exit   int
		stdout string
		stderr string
	}{
		"version":            {[]string{"version"}, 0, "longshore-agent dev (", ""},
		"--version":          {[]string{"--version"}, 0, "longshore-agent dev\n", ""},
		"help":               {[]string{"--help"}, 0, "Exit status: 0 done", ""},
		"an unknown command": {[]string{"walk"}, 2, "", `unknown command "walk"`},
		"an unknown flag":    {[]string{"run", "--walk"}, 2, "", "unknown flag: --walk"},
		"no token":           {[]string{"run"}, 2, "", "token: missing: set --token-file"},
		"two mistakes": {
			[]string{"run", "--token=t", "--concurrency=0", "--deploy-target=ecs"},
			2, "",
			"longshore-agent: deploy_target: ecs is not supported yet: use docker or process (flag --deploy-target)\nlongshore-agent: concurrency: 0",
		},
		"a directory that is none": {[]string{"run", "--token=t", "--working-directory=" + file + "/x"}, 2, "", "--working-directory"},
		"a taken port":             {[]string{"run", "--token=t", "--deploy-target=process", "--http-server-port=" + port}, 2, "", "port " + port + " is taken"},
		"a refused token": {
			[]string{"run", "--token=lsp-secret", "--deploy-target=process", "--http-server-port=-1", "--service-url=" + refusing.URL},
			3, "", "the service refuses the pool token",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			environ := []string{"HOME=" + t.TempDir(), "LONGSHORE_AGENT_WORKING_DIRECTORY=" + t.TempDir(), "PATH=/usr/bin:/bin"}
			exit := run(t.Context(), tc.args, environ, &stdout, &stderr)
			if exit != tc.exit || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("exit status %d, want %d\nstdout: %s\nwant %q\nstderr: %s\nwant %q", exit, tc.exit, &stdout, tc.stdout, &stderr, tc.stderr)
			}
			if strings.Contains(stderr.String(), "lsp-secret") {
				t.Errorf("stderr shows the token:\n%s", &stderr)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"run", "--help"}, {"drain", "--help"}, {"status", "--help"}, {"logs", "push", "--help"}} {
		var stdout bytes.Buffer
		if exit := run(t.Context(), args, nil, &stdout, io.Discard); exit != 0 {
			t.Fatalf("%q exits with %d", args, exit)
		}
		golden := filepath.Join("testdata", strings.Trim(strings.Join(args, "-"), "-")+".txt")
		if *update {
			if err := os.WriteFile(golden, stdout.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if stdout.String() != string(want) {
			t.Errorf("%q differs from %s: see with git diff after go test ./cmd/agent -update", args, golden)
		}
	}
}

// idle is a service without work that holds polls.
func idle(t *testing.T) (url string, polls <-chan struct{}) {
	t.Helper()
	polled := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			return // only asks for the time
		}
		polled <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL, polled
}

// program starts the real program. Its log lines arrive on the channel, which
// is closed at its end.
func program(t *testing.T, args ...string) (*exec.Cmd, <-chan map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = []string{"LONGSHORE_TEST_MAIN=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LONGSHORE_AGENT_WORKING_DIRECTORY=" + t.TempDir()}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan map[string]any, 100)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			var line map[string]any
			if json.Unmarshal(scanner.Bytes(), &line) != nil {
				line = map[string]any{"message": scanner.Text()}
			}
			lines <- line
		}
	}()
	return cmd, lines
}

// until returns the first log line with that message.
func until(t *testing.T, lines <-chan map[string]any, message string) map[string]any {
	t.Helper()
	for line := range lines {
		if line["message"] == message {
			return line
		}
	}
	t.Fatalf("the program ended without saying %q", message)
	return nil
}

func TestTheProgramRunsDrainsAndStops(t *testing.T) {
	t.Parallel()
	url, polls := idle(t)
	cmd, lines := program(t, "run", "--token=lsp-1", "--service-url="+url, "--deploy-target=process", "--http-server-port=0")
	began := time.Now()
	started := until(t, lines, "agent started")
	<-polls
	t.Logf("first poll %v after the start of the process", time.Since(began))

	resp, err := http.Get(fmt.Sprint(started["http"]) + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %s", resp.Status)
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, lines, "draining: no new polls; waiting for the one that is held and for the jobs in hand")
	ready, err := http.Get(fmt.Sprint(started["http"]) + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Body.Close()
	if ready.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/readyz while draining: %s", ready.Status)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, lines, "agent ended")
	for range lines { // to its end, before Wait closes the pipe
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the program ended with %v, want status 0", err)
	}
	if n := len(polls); n != 0 {
		t.Errorf("%d polls after the first", n)
	}
}

func TestAnOperatorDrainsTheProgram(t *testing.T) {
	t.Parallel()
	url, polls := idle(t)
	dir := t.TempDir()
	cmd, lines := program(t, "run", "--token=lsp-1", "--service-url="+url, "--deploy-target=process", "--http-server-port=-1",
		"--working-directory="+dir, "--poll-wait=1s", "--request-timeout=1s", "--concurrency=3")
	until(t, lines, "agent started")
	<-polls
	call := func(args ...string) (stdout, stderr string, exit int) {
		var out, errs bytes.Buffer
		exit = run(t.Context(), args, []string{"LONGSHORE_AGENT_WORKING_DIRECTORY=" + dir}, &out, &errs)
		return out.String(), errs.String(), exit
	}

	out, _, exit := call("status", "--json")
	var status map[string]any
	if err := json.Unmarshal([]byte(out), &status); err != nil || exit != 0 {
		t.Fatalf("status --json: exit status %d, %v, %s", exit, err, out)
	}
	if status["state"] != "running" || status["slots"] != 3.0 || status["busy"] != 0.0 || status["pid"] != float64(cmd.Process.Pid) {
		t.Errorf("status --json: %v", status)
	}
	if out, _, exit := call("status"); exit != 0 || !strings.HasPrefix(out, "running, 0 of 3 slots in use (process ") {
		t.Errorf("status: exit status %d, %s", exit, out)
	}

	out, errs, exit := call("drain", "--wait")
	if exit != 0 || !strings.HasPrefix(out, "draining, 0 of 3 slots in use\n") || !strings.HasSuffix(out, "the agent has ended\n") {
		t.Errorf("drain --wait: exit status %d, %s%s", exit, out, errs)
	}
	until(t, lines, "agent ended")
	for range lines { // to its end, before Wait closes the pipe
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the program ended with %v, want status 0", err)
	}
	for _, command := range []string{"drain", "status"} {
		if _, errs, exit := call(command); exit != 1 || !strings.Contains(errs, "no agent runs there") {
			t.Errorf("%s without an agent: exit status %d, %s", command, exit, errs)
		}
	}
}

func TestTheCloudDrainsTheProgram(t *testing.T) {
	t.Parallel()
	url, polls := idle(t)
	goes := make(chan struct{})
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		if r.URL.Path != "/computeMetadata/v1/instance/preempted" {
			fmt.Fprint(w, "NONE")
			return
		}
		select {
		case <-goes:
			fmt.Fprint(w, "TRUE")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(metadata.Close)
	cmd, lines := program(t, "run", "--token=lsp-1", "--service-url="+url, "--deploy-target=process", "--http-server-port=-1",
		"--poll-wait=1s", "--request-timeout=1s", "--instance-notices=auto", "--instance-metadata-url="+metadata.URL)
	until(t, lines, "agent started")
	<-polls
	close(goes)
	line := until(t, lines, "this machine is about to go: draining")
	if line["kind"] != "reclaimed" || line["goes_at"] == nil || line["jobs_may_run_until"] == nil {
		t.Errorf("the log says %v", line)
	}
	until(t, lines, "agent ended")
	for range lines { // to its end, before Wait closes the pipe
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the program ended with %v, want status 0", err)
	}
}

func TestForwarded(t *testing.T) {
	t.Parallel()
	got := forwarded([]string{"AWS_REGION", "MISSING"}, []string{"AWS_REGION=eu", "SECRET=x", "DOCKER_HOST=tcp://d"})
	if len(got) != 2 || got["AWS_REGION"] != "eu" || got["DOCKER_HOST"] != "tcp://d" {
		t.Errorf("forwarded() = %v, want the listed one and DOCKER_HOST", got)
	}
}
