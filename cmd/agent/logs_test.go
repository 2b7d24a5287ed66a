package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/logstream"
	"github.com/longshore-run/longshore/internal/undelivered"
)

// leave puts the log of a job into the store of a working directory.
func leave(t *testing.T, dir, id, url string, lines ...string) {
	t.Helper()
	spool := filepath.Join(t.TempDir(), "spool")
	s := logstream.New(logstream.Options{
		Sink:     logstream.SinkFunc(func(context.Context, int, api.LogBatch) error { return errors.New("away") }),
		SpoolDir: spool,
	})
	for _, l := range lines {
		s.Step(1).Line("%s", l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Close(ctx)
	kept, err := undelivered.In(dir).Put(undelivered.Record{JobID: id, JobToken: "lsj-secret", ServiceURL: url, DeploymentID: "d-" + id}, spool)
	if !kept || err != nil {
		t.Fatalf("Put() = %v, %v", kept, err)
	}
}

func TestLogsPush(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b, err := api.DecodeLogBatch(body)
		switch {
		case r.Header.Get("Authorization") != "token lsj-secret" || err != nil:
			t.Errorf("%s: %v", r.Header.Get("Authorization"), err)
		case strings.Contains(r.URL.Path, "/late/"):
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"code":401,"message":"this job is over"}`)
			return
		case strings.Contains(r.URL.Path, "/away/"):
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		for _, l := range b.Lines {
			fmt.Fprintf(&got, "%s: %s", r.URL.Path, l.Text)
		}
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(service.Close)
	dir := t.TempDir()
	push := func(exit int, stdout, stderr string, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		got := run(t.Context(), append([]string{"logs", "push"}, args...), []string{"HOME=" + t.TempDir(), "LONGSHORE_AGENT_WORKING_DIRECTORY=" + dir}, &out, &errs)
		if got != exit || out.String() != stdout || !strings.Contains(errs.String(), stderr) || strings.Contains(errs.String(), "lsj-secret") {
			t.Errorf("%q exits with %d, want %d\nstdout %q, want %q\nstderr %q, want %q", args, got, exit, &out, stdout, &errs, stderr)
		}
	}
	push(0, "No logs wait to be delivered.\n", "")
	push(2, "", "record.json", filepath.Join(dir, "nowhere"))
	leave(t, dir, "one", service.URL, "hello", "world")
	leave(t, dir, "two", service.URL, "again")
	push(0, "deployment d-two (job two): 1 lines delivered\n", "", filepath.Join(dir, "undelivered", "two"))
	push(0, "deployment d-one (job one): 2 lines delivered\n", "")
	if want := "/api/workflow/jobs/two/1/logs: again\n/api/workflow/jobs/one/1/logs: hello\n/api/workflow/jobs/one/1/logs: world\n"; got.String() != want {
		t.Errorf("the service got %q, want %q", &got, want)
	}
	leave(t, dir, "late", service.URL, "a", "b")
	push(1, "", "deployment d-late (job late): the service takes no more logs of this job: 2 lines are lost")
	leave(t, dir, "away", service.URL, "a")
	push(1, "", "could not be reached in time", "--timeout=100ms")
	push(1, "", "1 log lines", "--timeout=100ms", "--working-directory="+dir)
	push(0, "No logs wait to be delivered.\n", "", "--working-directory="+t.TempDir())
}
