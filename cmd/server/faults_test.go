package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/longshore-run/longshore/internal/testkit"
)

const (
	shopPath    = "/api/stacks/default/shop/dev/deployments"
	createBody  = `{"operation":"preview"}`
	userMessage = "user token (shown this once): "
)

// answer is what came back.
type answer struct {
	code int
	err  error // the request has no answer
	text []byte
	head http.Header
}

// ask sends one request, once.
func (p *process) ask(ctx context.Context, method, path, token, body string) (a answer) {
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Authorization", "token "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, err, text, resp.Header}
}

func (a answer) decode(t *testing.T, v any) {
	t.Helper()
	if a.err != nil {
		t.Fatal(a.err)
	}
	if err := json.Unmarshal(a.text, v); err != nil {
		t.Fatalf("answer %d %s: %v", a.code, a.text, err)
	}
}

// wantUnavailable wants the answer of a server whose database cannot be used.
func (a answer) wantUnavailable(t *testing.T, reason string) {
	t.Helper()
	var e struct {
		Code    int
		Message string
	}
	a.decode(t, &e)
	if a.code != http.StatusServiceUnavailable || e.Code != a.code || a.head.Get("Retry-After") != "2" || !strings.Contains(e.Message, reason) {
		t.Errorf("answer %d %s with Retry-After %q, want 503 with 2 and %q", a.code, a.text, a.head.Get("Retry-After"), reason)
	}
	for _, inside := range []string{"INSERT", "SQL", "longshore.db"} {
		if strings.Contains(string(a.text), inside) {
			t.Errorf("answer %s shows %q", a.text, inside)
		}
	}
}

// wantReady waits until /readyz says what is wanted, the empty text for ready.
func (p *process) wantReady(t *testing.T, reason string) {
	t.Helper()
	var last answer
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // polls a condition
		last = p.ask(t.Context(), "GET", "/readyz", "", "")
		if last.err == nil && (last.code == http.StatusOK) == (reason == "") && strings.Contains(string(last.text), reason) {
			return
		}
	}
	t.Fatalf("/readyz = %d %s %v, want %q", last.code, last.text, last.err, reason)
}

func (p *process) wantHealthy(t *testing.T) {
	t.Helper()
	if a := p.ask(t.Context(), "GET", "/healthz", "", ""); a.code != http.StatusOK {
		t.Errorf("/healthz = %d %v, want 200: a restart would help nobody", a.code, a.err)
	}
}

// serving starts a server with a pool.
func serving(t *testing.T, dir string, args ...string) (p *process, user, pool string) {
	t.Helper()
	p = start(t, append([]string{"serve", "--data-dir", dir}, args...)...)
	user = strings.TrimPrefix(p.lines[0], userMessage)
	var made struct{ TokenValue string }
	p.ask(t.Context(), "POST", "/api/orgs/default/agent-pools", user, `{"name":"a"}`).decode(t, &made)
	return p, user, made.TokenValue
}

// TestLockedDatabase lets another program hold the lock for writing for longer
// than the server waits.
func TestLockedDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, user, _ := serving(t, dir)
	var made struct{ ID string }
	p.ask(t.Context(), "POST", shopPath, user, createBody).decode(t, &made)

	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "longshore.db"))
	check(t, err)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	check(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	check(t, err)
	p.ask(t.Context(), "POST", shopPath, user, createBody).wantUnavailable(t, "another program holds a lock on it")
	p.wantReady(t, "the database cannot be used")
	p.wantHealthy(t)
	if a := p.ask(t.Context(), "GET", shopPath+"/"+made.ID, user, ""); a.code != http.StatusOK {
		t.Errorf("reading = %d %s, want 200: that needs no lock", a.code, a.text)
	}
	// A request that comes in while the lock is held is answered once it is not.
	late := make(chan answer, 1)
	go func() { late <- p.ask(t.Context(), "POST", shopPath, user, createBody) }()
	_, err = conn.ExecContext(t.Context(), "ROLLBACK")
	check(t, err)
	if a := <-late; a.code != http.StatusAccepted {
		t.Errorf("a request that waited for the lock = %d %s, want 202", a.code, a.text)
	}
	p.wantReady(t, "")
	check(t, p.Process.Signal(syscall.SIGTERM))
	p.end(t)
}

// TestDatabaseGone takes the file of the database away: what would be written
// to it then would be lost with the process.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, user, pool := serving(t, dir)
	path := filepath.Join(dir, "longshore.db")
	check(t, os.Rename(path, path+".away"))
	p.ask(t.Context(), "POST", shopPath, user, createBody).wantUnavailable(t, "its file is gone")
	p.ask(t.Context(), "GET", "/api/deployments/poll", pool, "").wantUnavailable(t, "its file is gone")
	p.wantReady(t, "its file is gone")
	p.wantHealthy(t)
	check(t, os.Rename(path+".away", path))
	p.wantReady(t, "")
	if a := p.ask(t.Context(), "POST", shopPath, user, createBody); a.code != http.StatusAccepted {
		t.Errorf("create = %d %s, want 202 once the file is back", a.code, a.text)
	}
	check(t, p.Process.Signal(syscall.SIGTERM))
	p.end(t)
}

// TestFullDisk fills the disk of the database under a job that writes its log.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 16<<20)
	p, user, pool := serving(t, dir)
	var made, work struct{ ID, JobID, JobToken string }
	p.ask(t.Context(), "POST", shopPath, user, createBody).decode(t, &made)
	p.ask(t.Context(), "GET", "/api/deployments/poll", pool, "").decode(t, &work)
	job := "/api/workflow/jobs/" + work.JobID
	offset := 0
	write := func() answer {
		t.Helper()
		a := p.ask(t.Context(), "POST", job+"/0/logs", work.JobToken, logBody(offset, 50))
		if a.code == http.StatusOK {
			offset += 50
		}
		return a
	}
	if a := write(); a.code != http.StatusOK {
		t.Fatalf("log = %d %s, want 200", a.code, a.text)
	}
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	var full answer
	for range 1000 { // until what is left in the files themselves is used up
		if full = write(); full.code != http.StatusOK {
			break
		}
	}
	full.wantUnavailable(t, "its disk is full")
	p.wantReady(t, "its disk is full")
	p.wantHealthy(t)
	many := make(chan answer)
	for range 30 { // that share one commit
		go func() { many <- p.ask(t.Context(), "POST", shopPath, user, createBody) }()
	}
	for range 30 {
		(<-many).wantUnavailable(t, "its disk is full")
	}
	if a := p.ask(t.Context(), "GET", shopPath+"/"+made.ID, user, ""); a.code != http.StatusOK {
		t.Errorf("reading = %d %s, want 200: that needs no room", a.code, a.text)
	}

	check(t, os.Remove(ballast))
	p.wantReady(t, "")
	if a := write(); a.code != http.StatusOK {
		t.Errorf("log = %d %s, want 200 once there is room", a.code, a.text)
	}
	p.wantLog(t, user, shopPath+"/"+made.ID, 0, offset)
	check(t, p.Process.Signal(syscall.SIGTERM))
	p.end(t)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "longshore.db"))
	check(t, err)
	defer db.Close()
	var sound string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
		t.Errorf("integrity_check = %q, %v, want ok", sound, err)
	}
}

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, bytes int) (dir string) {
	t.Helper()
	testkit.Need(t, "root")
	dir = t.TempDir()
	err := syscall.Mount("longshore-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
	if errors.Is(err, syscall.EPERM) {
		t.Skip("root may not mount here")
	}
	check(t, err)
	t.Cleanup(func() { check(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fill leaves no room beside the file at path.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			check(t, err)
		}
	}
}

// logLine is the text of line n of every log of these tests. It does not
// compress well.
func logLine(n int) string { return fmt.Sprintf("line %d %x\n", n, uint64(n+1)*0x9e3779b97f4a7c15) }

func logBody(offset, count int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"offset":%d,"lines":[`, offset)
	for n := offset; n < offset+count; n++ {
		if n > offset {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"t":"2026-11-23T10:00:00Z","l":%q}`, logLine(n))
	}
	return b.String() + "]}"
}

// wantLog wants a step to have at least the given number of lines, each once and
// in order.
func (p *process) wantLog(t *testing.T, user, deployment string, step, atLeast int) {
	t.Helper()
	have := 0
	for {
		var part struct {
			Lines      []struct{ Line string }
			NextOffset *int
		}
		p.ask(t.Context(), "GET", fmt.Sprintf("%s/logs?step=%d&offset=%d&count=499", deployment, step, have), user, "").decode(t, &part)
		for _, l := range part.Lines {
			if l.Line != logLine(have) {
				t.Fatalf("line %d of step %d of %s is %q, want %q", have, step, deployment, l.Line, logLine(have))
			}
			have++
		}
		if len(part.Lines) == 0 || part.NextOffset == nil {
			break
		}
	}
	if have < atLeast {
		t.Errorf("step %d of %s has %d lines, want the %d that were acknowledged", step, deployment, have, atLeast)
	}
}

// field returns a text of the JSON object in an answer.
func field(a answer, name string) string {
	var all map[string]any
	_ = json.Unmarshal(a.text, &all) // what is missing is seen by its use
	text, _ := all[name].(string)
	return text
}
