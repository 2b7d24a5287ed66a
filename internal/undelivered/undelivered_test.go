package undelivered_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/logstream"
	"github.com/longshore-run/longshore/internal/undelivered"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var record = undelivered.Record{JobID: "job-1", JobToken: "lsj-token", ServiceURL: "http://service", DeploymentID: "d-1"}

// spool makes a spool as an executor leaves it when the service stays away.
func spool(t *testing.T, step int, lines ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spool")
	s := logstream.New(logstream.Options{
		Sink:     logstream.SinkFunc(func(context.Context, int, api.LogBatch) error { return errors.New("away") }),
		SpoolDir: dir,
	})
	for _, l := range lines {
		s.Step(step).Line("%s", l)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gave up"))
	if err := s.Close(ctx); err == nil {
		t.Fatal("everything was delivered")
	}
	return dir
}

// service keeps what it gets.
type service struct {
	mu    sync.Mutex
	lines []string
	err   error // what it answers instead
}

func (s *service) take(_ context.Context, step int, b api.LogBatch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	for _, l := range b.Lines {
		s.lines = append(s.lines, fmt.Sprintf("%d %s", step, strings.TrimSpace(l.Text)))
	}
	return nil
}

func put(t *testing.T, s undelivered.Store, r undelivered.Record, spools ...string) {
	t.Helper()
	if kept, err := s.Put(r, spools...); !kept || err != nil {
		t.Fatalf("Put() = %v, %v", kept, err)
	}
}

func list(t *testing.T, s undelivered.Store, want int) []undelivered.Job {
	t.Helper()
	jobs, err := s.List()
	if err != nil || len(jobs) != want {
		t.Fatalf("List() = %v, %v, want %d jobs", jobs, err, want)
	}
	return jobs
}

func TestWhatIsPutIsDeliveredOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := undelivered.In(dir)
	list(t, store, 0)
	put(t, store, record, spool(t, 1, "one", "two"), filepath.Join(dir, "nowhere"), spool(t, 0, "setup"))
	put(t, store, record, spool(t, 2, "late"))
	other := record
	other.JobID, other.DeploymentID = "job-2", "d-2"
	put(t, store, other, spool(t, 1, "other"))

	for _, path := range []string{"job-1/record.json", "job-1/spool/acked", "job-1/spool-2/50000000.spool", "job-1.2/spool/50000000.spool"} {
		info, err := os.Stat(filepath.Join(dir, "undelivered", path))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	jobs := list(t, store, 3)
	if diff := cmp.Diff([]undelivered.Record{record, record, other}, []undelivered.Record{jobs[0].Record, jobs[1].Record, jobs[2].Record}); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	s := &service{}
	var delivered int64
	for _, j := range jobs {
		res, err := j.Push(t.Context(), logstream.SinkFunc(s.take), zaptest.NewLogger(t))
		if err != nil || res.Lost+res.Left > 0 {
			t.Errorf("Push() = %+v, %v", res, err)
		}
		delivered += res.Delivered
	}
	if diff := cmp.Diff([]string{"1 one", "1 two", "0 setup", "2 late", "1 other"}, s.lines); diff != "" || delivered != 5 {
		t.Errorf("%d delivered (-want +got):\n%s", delivered, diff)
	}
	list(t, store, 0)
	if left, err := os.ReadDir(filepath.Join(dir, "undelivered")); len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWhatTheServiceRefusesIsLost(t *testing.T) {
	t.Parallel()
	for _, code := range []int{401, 403, 404, 410} {
		store := undelivered.In(t.TempDir())
		put(t, store, record, spool(t, 1, "one", "two"), spool(t, 0, "setup"))
		s := &service{err: api.Errorf(code, "over")}
		res, err := list(t, store, 1)[0].Push(t.Context(), logstream.SinkFunc(s.take), nil)
		if !errors.Is(err, undelivered.ErrRefused) || res != (undelivered.Result{Lost: 3}) || !strings.Contains(err.Error(), "3 lines are lost") {
			t.Errorf("%d: Push() = %+v, %v", code, res, err)
		}
		list(t, store, 0)
	}
}

func TestWhatIsNotDeliveredStays(t *testing.T) {
	t.Parallel()
	store := undelivered.In(t.TempDir())
	put(t, store, record, spool(t, 1, "one", "two"))
	s := &service{err: api.Errorf(503, "away")}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	res, err := list(t, store, 1)[0].Push(ctx, logstream.SinkFunc(s.take), nil)
	if !errors.Is(err, context.DeadlineExceeded) || res != (undelivered.Result{Left: 2}) {
		t.Errorf("Push() = %+v, %v", res, err)
	}
	s.err = nil
	if res, err := list(t, store, 1)[0].Push(t.Context(), logstream.SinkFunc(s.take), nil); err != nil || res.Delivered != 2 {
		t.Errorf("the second Push() = %+v, %v", res, err)
	}
}

func TestOnlyOneDelivers(t *testing.T) {
	t.Parallel()
	store := undelivered.In(t.TempDir())
	put(t, store, record, spool(t, 1, "one"))
	job := list(t, store, 1)[0]
	asked, answer := make(chan struct{}), make(chan struct{})
	sink := logstream.SinkFunc(func(context.Context, int, api.LogBatch) error {
		close(asked)
		<-answer
		return nil
	})
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := job.Push(t.Context(), sink, nil); err != nil {
			t.Error(err)
		}
	})
	<-asked
	if _, err := job.Push(t.Context(), sink, nil); !errors.Is(err, undelivered.ErrBusy) {
		t.Errorf("the second Push() = %v", err)
	}
	if err := job.Remove(); !errors.Is(err, undelivered.ErrBusy) {
		t.Errorf("Remove() = %v", err)
	}
	close(answer)
	first.Wait()
	if err := job.Remove(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Remove() of what is gone = %v", err)
	}
}

func TestNothingToKeep(t *testing.T) {
	t.Parallel()
	store := undelivered.In(t.TempDir())
	for _, dir := range []string{filepath.Join(t.TempDir(), "nowhere"), t.TempDir()} {
		if kept, err := store.Put(record, dir); kept || err != nil {
			t.Errorf("Put() = %v, %v", kept, err)
		}
	}
	list(t, store, 0)
	for _, id := range []string{"", ".", "..", "../x", "a/b", ".new-1"} {
		if _, err := store.Put(undelivered.Record{JobID: id}, spool(t, 1, "x")); err == nil {
			t.Errorf("id %q is taken", id)
		}
	}
}

// TestASpoolOfAnEvilJob: steps may write to where their spool lies.
func TestASpoolOfAnEvilJob(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	evil := spool(t, 1, "one")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secret, "hunter2")
	write(filepath.Join(evil, "notes.txt"), "hello")
	write(filepath.Join(evil, "50000001.spool"), "LSL2 and so on")
	if err := errors.Join(
		os.Symlink(secret, filepath.Join(evil, "50000002.spool")),
		syscall.Mkfifo(filepath.Join(evil, "50000003.spool"), 0o600),
		os.Mkdir(filepath.Join(evil, "50000004.spool"), 0o700),
		os.Remove(filepath.Join(evil, "acked")),
		os.Symlink(secret, filepath.Join(evil, "acked")),
	); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store := undelivered.In(dir)
	put(t, store, record, evil)
	entries, err := os.ReadDir(filepath.Join(dir, "undelivered", "job-1", "spool"))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v were taken, %v", entries, err)
	}
	s := &service{}
	res, err := list(t, store, 1)[0].Push(t.Context(), logstream.SinkFunc(s.take), nil)
	if err != nil || len(s.lines) != 2 || s.lines[0] != "1 one" || !strings.Contains(s.lines[1], "lines may be missing here") {
		t.Errorf("Push() = %+v, %v, lines %q", res, err, s.lines)
	}
	if content, err := os.ReadFile(secret); string(content) != "hunter2" {
		t.Errorf("the secret is %q, %v", content, err)
	}
}

func TestARecordThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := undelivered.In(dir)
	put(t, store, record, spool(t, 1, "one"))
	if err := os.MkdirAll(filepath.Join(dir, "undelivered", "job-0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "undelivered", "job-0", "record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	jobs, err := store.List()
	if err == nil || !strings.Contains(err.Error(), "job-0/record.json") || len(jobs) != 1 {
		t.Errorf("List() = %v, %v", jobs, err)
	}
}

func TestSweepRemovesWhatWasPutHalfway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, young := filepath.Join(dir, undelivered.DirectoryName, ".new-1"), filepath.Join(dir, undelivered.DirectoryName, ".new-2")
	for _, half := range []string{old, young} {
		if err := os.MkdirAll(filepath.Join(half, "spool"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	if err := undelivered.In(dir).Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("what was left halfway: %v, want it gone", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("what is being put: %v, want it there", err)
	}
}
