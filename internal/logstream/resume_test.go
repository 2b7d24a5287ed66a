package logstream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/logstream"
)

// small makes everything small, so that little output goes all ways.
func small(sink logstream.Sink, dir string) logstream.Options {
	return logstream.Options{
		Sink: sink, FlushInterval: time.Millisecond, FlushBytes: 2 << 10, BatchBytes: 4 << 10, MemoryBytes: 16 << 10,
		SpoolDir: dir, RetryWait: time.Millisecond, RetryMaxWait: 2 * time.Millisecond,
	}
}

// print writes the lines from number to number of a step.
func print(s *logstream.Streams, step, from, to int) {
	for i := from; i < to; i++ {
		_, _ = fmt.Fprintf(s.Step(step), "%06d %s\n", i, strings.Repeat("x", i%90))
	}
}

// check makes sure that a log has each line once and in order, or says how many
// are missing, and returns how many are there and how many are not. A log that
// was cut says so in its last line.
func check(t *testing.T, log []string) (there, missing int, torn bool) {
	t.Helper()
	next := 0
	for i, l := range log {
		var n int
		switch {
		case strings.HasPrefix(l, "[longshore: lines may be missing here"):
			torn = true
			if i != len(log)-1 {
				t.Errorf("line %d of %d: %q", i, len(log), l)
			}
		case strings.HasPrefix(l, "[longshore: "):
			if _, err := fmt.Sscanf(l, "[longshore: %d lines of this log are missing", &n); err != nil {
				t.Errorf("line %q: %v", l, err)
			}
			next, missing = next+n, missing+n
		default:
			if _, err := fmt.Sscanf(l, "%d ", &n); err != nil || n != next {
				t.Fatalf("line %d is %.20q, want number %d", i, l, next)
			}
			next, there = next+1, there+1
		}
	}
	return there, missing, torn
}

func giveUp(t *testing.T, s *logstream.Streams) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no time left"))
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), "no time left") {
		t.Errorf("Close() = %v", err)
	}
	if s.Delivered() {
		t.Error("everything is said to be delivered")
	}
}

func resume(t *testing.T, o logstream.Options) *logstream.Streams {
	t.Helper()
	s, err := logstream.Resume(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there, with %v", dir, left)
	}
}

func TestWhatCloseLeavesIsDeliveredByAnotherProcess(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"from memory alone": 20, "from memory and spool": 5000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newService()
			dir := filepath.Join(t.TempDir(), "spool")
			sink := logstream.SinkFunc(service.take)
			s := logstream.New(small(sink, dir))
			print(s, 1, 0, 10)
			if err := s.Flush(closing(t)); err != nil {
				t.Fatal(err)
			}
			service.setFault(func(int, api.LogBatch) error { return errors.New("away") })
			print(s, 1, 10, n)
			print(s, 2, 0, n)
			_, _ = fmt.Fprintf(s.Step(2), "%06d a last line without its end", n)
			giveUp(t, s)

			// The next one is not luckier, and has something to say, too.
			s = resume(t, small(sink, dir))
			if got := s.Resumed(); got != int64(2*n+1-10) || s.Left() != got {
				t.Errorf("%d lines are left, want %d", got, 2*n+1-10)
			}
			print(s, 3, 0, 3)
			giveUp(t, s)

			service.setFault(nil)
			s = resume(t, small(sink, dir))
			mustClose(t, s)
			mustBeEmpty(t, dir)
			for step, want := range map[int]int{1: n, 2: n + 1, 3: 3} {
				if there, missing, torn := check(t, service.lines(step)); there != want || missing > 0 || torn {
					t.Errorf("step %d: %d lines there, %d missing, cut %v; want %d", step, there, missing, torn, want)
				}
			}
		})
	}
}

func TestNothingIsLeftOfWhatTheServiceRefuses(t *testing.T) {
	t.Parallel()
	service := newService()
	dir := filepath.Join(t.TempDir(), "spool")
	service.setFault(func(int, api.LogBatch) error { return errors.New("away") })
	s := logstream.New(small(logstream.SinkFunc(service.take), dir))
	print(s, 1, 0, 3000)
	giveUp(t, s)
	service.setFault(func(int, api.LogBatch) error { return api.Errorf(401, "this job is over") })
	s = resume(t, small(logstream.SinkFunc(service.take), dir))
	var e *api.Error
	if err := s.Close(closing(t)); !errors.As(err, &e) || e.Code != 401 || !strings.Contains(err.Error(), "3000 log lines") {
		t.Errorf("Close() = %v", err)
	}
	mustBeEmpty(t, dir)
}

// TestAKilledProcess stops the clock at a random call of the service: what lies
// in the spool then is what a killed process leaves, a half-written record
// included. The service may have stored that call or not.
func TestAKilledProcess(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			service := newService()
			dir, left := filepath.Join(t.TempDir(), "spool"), filepath.Join(t.TempDir(), "spool")
			deadAt, stored := int64(2+random.IntN(120)), random.IntN(2) == 0
			faulty := random.Perm(8)
			killed := make(chan struct{})
			var once sync.Once
			var calls atomic.Int64
			sink := logstream.SinkFunc(func(ctx context.Context, step int, b api.LogBatch) error {
				n := calls.Add(1)
				if n > deadAt {
					return errors.New("killed")
				}
				if n == deadAt {
					if stored {
						_ = service.take(ctx, step, b)
					}
					once.Do(func() {
						if err := os.CopyFS(left, os.DirFS(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
							t.Error(err)
						}
						close(killed)
					})
					return errors.New("killed")
				}
				switch faulty[n%8] {
				case 0, 1:
					return errors.New("away")
				case 2: // stored, and the reply lost
					_ = service.take(ctx, step, b)
					return errors.New("cut")
				case 3:
					if len(b.Lines) > 10 {
						return api.Errorf(413, "too large")
					}
				}
				return service.take(ctx, step, b)
			})
			s := logstream.New(small(sink, dir))
			print(s, 1, 0, 2000)
			print(s, 2, 0, 2000)
			last, alive := 0, true
			for alive {
				print(s, 3, last, last+100)
				last += 100
				select {
				case <-killed:
					alive = false
				default:
				}
			}
			n := 4000 + last
			giveUp(t, s)

			sink = logstream.SinkFunc(service.take)
			s = resume(t, small(sink, left))
			before := s.Resumed()
			mustClose(t, s)
			mustBeEmpty(t, left)
			total := 0
			for step := 1; step <= 3; step++ {
				there, missing, _ := check(t, service.lines(step))
				total += there + missing
			}
			if total > n {
				t.Errorf("%d lines of %d", total, n)
			}
			t.Logf("killed at call %d: %d lines were left, %d of %d are accounted for", deadAt, before, total, n)
		})
	}
}

func TestADamagedSpoolIsResumed(t *testing.T) {
	t.Parallel()
	flip := func(content []byte, at int) []byte {
		content[at] ^= 4
		return content
	}
	for name, c := range map[string]struct {
		file   string
		damage func(content []byte) []byte
		all    bool // nothing is missing
	}{
		"a flipped bit in lines":              {"50000000.spool", func(b []byte) []byte { return flip(b, len(b)/2) }, false},
		"a flipped bit in a length":           {"50000000.spool", func(b []byte) []byte { return flip(b, 6) }, false},
		"a flipped bit in a mark":             {"50000000.spool", func(b []byte) []byte { return flip(b, 0) }, false},
		"a torn tail":                         {"50000000.spool", func(b []byte) []byte { return b[:len(b)-100] }, false},
		"a file of nothing but zeros":         {"50000000.spool", func(b []byte) []byte { clear(b); return b }, false},
		"an empty file":                       {"50000000.spool", func(b []byte) []byte { return nil }, false},
		"something else":                      {"notes.txt", func([]byte) []byte { return []byte("hello") }, true},
		"a flipped bit in what was delivered": {"acked", func(b []byte) []byte { return flip(b, len(b)-20) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newService()
			dir := filepath.Join(t.TempDir(), "spool")
			sink := logstream.SinkFunc(service.take)
			s := logstream.New(small(sink, dir))
			print(s, 1, 0, 50)
			if err := s.Flush(closing(t)); err != nil {
				t.Fatal(err)
			}
			service.setFault(func(int, api.LogBatch) error { return errors.New("away") })
			const n = 4000
			print(s, 1, 50, n)
			giveUp(t, s)
			path := filepath.Join(dir, c.file)
			content, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.damage(content), 0o600); err != nil {
				t.Fatal(err)
			}
			service.setFault(nil)
			s = resume(t, small(sink, dir))
			mustClose(t, s)
			there, missing, _ := check(t, service.lines(1))
			if there+missing != n || (missing == 0) != c.all {
				t.Errorf("%d lines there, %d missing", there, missing)
			}
		})
	}
}

// FuzzResume reads a spool that was made by somebody else.
func FuzzResume(f *testing.F) {
	service := newService()
	service.setFault(func(int, api.LogBatch) error { return errors.New("away") })
	dir := filepath.Join(f.TempDir(), "spool")
	s := logstream.New(small(logstream.SinkFunc(service.take), dir))
	print(s, 1, 0, 100)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Close(ctx)
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		return content
	}
	f.Add(read("50000000.spool"), read("acked"))
	f.Fuzz(func(t *testing.T, spool, acked []byte) {
		dir := filepath.Join(t.TempDir(), "spool")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string][]byte{"50000000.spool": spool, "acked": acked} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := logstream.Resume(small(logstream.SinkFunc(newService().take), dir))
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
	})
}
