package pipe_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/blob/pipe"
	"github.com/longshore-run/longshore/internal/testkit"
)

// program is the real one.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pipe-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, pipe.Program)
	if out, err := exec.Command("go", "build", "-o", program, "../../../cmd/bucket").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build: %v\n%s", err, out))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, url string, environ map[string]string) (*pipe.Client, error) {
	t.Helper()
	o := pipe.Options{Path: program, URL: url, Environ: []string{"LONGSHORE_AGENT_TOKEN=lsp-secret"}, Log: zaptest.NewLogger(t)}
	for name, value := range environ {
		o.Environ = append(o.Environ, name+"="+value)
	}
	c, err := pipe.Open(t.Context(), o)
	if err == nil {
		t.Cleanup(func() { check(t, c.Close()) })
	}
	return c, err
}

// child returns the process id of the program with a URL, and what is in its
// environment.
func child(t testing.TB, url string) (pid int, environ string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || string(text) != program+"\x00"+url+"\x00" {
			continue
		}
		pid, err = strconv.Atoi(filepath.Base(filepath.Dir(path)))
		check(t, err)
		vars, err := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		check(t, err)
		return pid, string(vars)
	}
	return 0, ""
}

func TestClient(t *testing.T) {
	t.Parallel()
	s3 := testkit.StartS3(t)
	c, err := open(t, s3.URL, s3.Environ())
	check(t, err)
	const name = "cache/acme/shop/dev/npm-1.tar.zst"
	if _, err := c.Stat(t.Context(), name); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Stat of nothing: %v", err)
	}
	check(t, c.Write(t.Context(), name, []byte("hello")))
	o, err := c.Stat(t.Context(), name)
	if err != nil || o.Size != 5 || o.Name != name || o.Modified.IsZero() {
		t.Errorf("Stat = %+v, %v", o, err)
	}
	signed, err := c.Sign(t.Context(), "GET", name, 15*time.Minute)
	check(t, err)
	resp, err := http.Get(signed)
	check(t, err)
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err != nil || string(text) != "hello" {
		t.Errorf("the URL opens %q, %v", text, err)
	}
	for _, bad := range []string{"", "../x", "/x"} {
		if _, err := c.Sign(t.Context(), "GET", bad, time.Minute); err == nil {
			t.Errorf("Sign(%q) gave a URL", bad)
		}
	}
	check(t, c.Delete(t.Context(), name))
	check(t, c.Delete(t.Context(), name))

	var many sync.WaitGroup
	for n := range 40 { // more than are done at the same time
		many.Go(func() {
			for i := range 30 {
				if err := c.Write(t.Context(), fmt.Sprintf("many/%02d-%02d", n, i), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	many.Wait()
	seen := ""
	count := 0
	for o, err := range c.List(t.Context(), "many/") { // more than a page has
		check(t, err)
		if o.Name <= seen {
			t.Errorf("%s comes after %s", o.Name, seen)
		}
		seen = o.Name
		count++
	}
	if count != 1200 {
		t.Errorf("a list has %d objects, want 1200", count)
	}

	pid, environ := child(t, s3.URL)
	if pid == 0 || strings.Contains(environ, "lsp-secret") || !strings.Contains(environ, "AWS_ACCESS_KEY_ID") {
		t.Errorf("the program %d runs with %q", pid, environ)
	}
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // polls a condition
		if _, err = c.Stat(t.Context(), seen); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the program was killed: %v", err)
		}
	}
	if again, _ := child(t, s3.URL); again == pid || again == 0 {
		t.Errorf("the program that answers is %d, and %d was killed", again, pid)
	}
	check(t, c.Close())
	if pid, _ := child(t, s3.URL); pid != 0 {
		t.Errorf("the program %d outlives its client", pid)
	}
	if _, err := c.Stat(t.Context(), seen); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Stat after Close: %v", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"s3://bucket/path": "neither a user nor a path",
		"file:///tmp":      "no scheme of a bucket",
		"gs://bucket":      "set GOOGLE_APPLICATION_CREDENTIALS",
	} {
		if _, err := open(t, url, map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s): %v, want %q", url, err, want)
		}
	}
	if _, err := pipe.Open(t.Context(), pipe.Options{Path: "/nowhere", URL: "s3://x"}); err == nil {
		t.Error("a program that is not there has started")
	}
	if _, err := pipe.Open(t.Context(), pipe.Options{Path: "/bin/true", URL: "s3://x"}); err == nil || !strings.Contains(err.Error(), "ended at once") {
		t.Errorf("a program that says nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pipe.Open(ctx, pipe.Options{Path: "/bin/cat", URL: "-"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
