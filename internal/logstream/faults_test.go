package logstream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/logstream"
)

// faults are what can happen to one request.
var faults = []func(w http.ResponseWriter, r *http.Request, store func()){
	func(w http.ResponseWriter, _ *http.Request, _ func()) { w.WriteHeader(http.StatusInternalServerError) },
	func(w http.ResponseWriter, _ *http.Request, _ func()) {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
	},
	func(http.ResponseWriter, *http.Request, func()) { panic(http.ErrAbortHandler) },
	func(_ http.ResponseWriter, _ *http.Request, store func()) { // stored, and the reply lost
		store()
		panic(http.ErrAbortHandler)
	},
	func(w http.ResponseWriter, _ *http.Request, _ func()) { fmt.Fprint(w, "<html>come back later</html>") },
	func(w http.ResponseWriter, r *http.Request, store func()) {
		if r.ContentLength > 5000 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		store()
	},
}

func TestEveryByteArrivesOnceAndInOrder(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			service := newService()
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(seed, seed))
			sink := serve(t, service, func(w http.ResponseWriter, r *http.Request, store func()) {
				mu.Lock()
				n := random.IntN(2 * len(faults))
				mu.Unlock()
				if n < len(faults) {
					faults[n](w, r, store)
					return
				}
				store()
			})
			dir := t.TempDir()
			s := logstream.New(logstream.Options{
				Sink: sink, FlushInterval: time.Millisecond, FlushBytes: 4 << 10, BatchBytes: 8 << 10, MemoryBytes: 32 << 10,
				SpoolDir: dir, RetryWait: time.Millisecond, RetryMaxWait: 4 * time.Millisecond,
			})
			want := [3]strings.Builder{}
			source := rand.New(rand.NewPCG(seed, 99))
			for i := range 3000 {
				step := i * 3 / 3000
				text := fmt.Sprintf("%d %s\n", i, strings.Repeat("0123456789", source.IntN(20)))
				want[step].WriteString(text)
				_, _ = s.Step(step).Write([]byte(text))
			}
			mustClose(t, s)
			for step := range want {
				if got, want := digest(service.text(step)), digest(want[step].String()); got != want {
					t.Errorf("step %d: %s, want %s", step, got, want)
				}
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("the spool leaves %v", left)
			}
		})
	}
}

func TestTheJobRunsOnWhileTheServiceIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newService()
		away := errors.New("connection refused")
		service.setFault(func(int, api.LogBatch) error { return away })
		dir := t.TempDir()
		s := logstream.New(logstream.Options{
			Sink: logstream.SinkFunc(service.take), FlushBytes: 16 << 10, BatchBytes: 32 << 10, MemoryBytes: 128 << 10, SpoolDir: filepath.Join(dir, "spool"),
		})
		var want strings.Builder
		began := time.Now()
		for i := range 100_000 {
			text := fmt.Sprintf("%06d some line of a log that goes on and on\n", i)
			want.WriteString(text)
			_, _ = s.Step(1).Write([]byte(text))
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the job waited %s", took)
		}
		files, _ := filepath.Glob(filepath.Join(dir, "spool", "*"))
		if len(files) == 0 {
			t.Fatal("nothing is in the spool")
		}
		for _, f := range files {
			if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", f, info.Mode(), err)
			}
		}
		time.Sleep(10 * time.Minute)
		if n := service.count(); n > 100 {
			t.Errorf("%d tries in 10 minutes", n)
		}
		service.setFault(nil)
		began = time.Now()
		if err := s.Flush(t.Context()); err != nil || time.Since(began) > time.Minute {
			t.Errorf("Flush() = %v after %s", err, time.Since(began))
		}
		if got, want := digest(service.text(1)), digest(want.String()); got != want {
			t.Errorf("the service has %s, want %s", got, want)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "spool")); len(left) > 0 {
			t.Errorf("the spool leaves %v once it is empty", left)
		}
		_, _ = s.Step(1).Write([]byte("and on\n"))
		mustClose(t, s)
		if got := service.text(1); !strings.HasSuffix(got, "\nand on\n") {
			t.Errorf("the log ends with %q", got[len(got)-20:])
		}
	})
}

// gaps returns the log with each run of missing lines as one text, and how many
// lines and bytes those say are missing.
func gaps(t *testing.T, log []string) (texts []string, lines, bytes int) {
	t.Helper()
	for _, l := range log {
		if !strings.HasPrefix(l, "[longshore: ") {
			continue
		}
		texts = append(texts, l)
		var n, b int
		if k, _ := fmt.Sscanf(l, "[longshore: %d lines of this log are missing: %d bytes", &n, &b); k > 0 {
			lines, bytes = lines+n, bytes+b
		}
	}
	return texts, lines, bytes
}

func TestWhenThereIsNoRoomLeftTheMiddleGoesAndTheJobRunsOn(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *logstream.Options, dir string)
		waits  time.Duration
		most   int // bytes that are kept, about
	}{
		"the spool has reached its cap": {func(o *logstream.Options, dir string) { o.SpoolDir, o.SpoolCap = dir, 640<<10 }, 0, 700 << 10},
		"there is no spool":             {func(*logstream.Options, string) {}, 30 * time.Second, 32 << 10},
		"the spool cannot be written":   {func(o *logstream.Options, _ string) { o.SpoolDir = "/dev/null/spool" }, 30 * time.Second, 32 << 10},
		"a writer has less patience":    {func(o *logstream.Options, _ string) { o.Patience = time.Second }, time.Second, 32 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				service := newService()
				service.setFault(func(int, api.LogBatch) error { return api.Errorf(503, "away") })
				o := logstream.Options{Sink: logstream.SinkFunc(service.take), FlushBytes: 4 << 10, BatchBytes: 8 << 10, MemoryBytes: 32 << 10}
				c.change(&o, t.TempDir())
				s := logstream.New(o)
				s.Step(1).Line("0: the first")
				time.Sleep(time.Second) // the service is known to be away
				began := time.Now()
				const n, size = 20_000, 100
				for i := range n {
					_, _ = fmt.Fprintf(s.Step(1), "%06d%s\n", i, strings.Repeat("x", size-7))
				}
				if took := time.Since(began); took != c.waits {
					t.Errorf("the job waited %s, want %s", took, c.waits)
				}
				service.setFault(nil)
				mustClose(t, s)
				log := service.lines(1)
				texts, lines, bytes := gaps(t, log)
				if len(texts) != 1 || lines*size != bytes || lines+len(log)-2 != n {
					t.Errorf("gaps %q, %d lines missing, %d lines there", texts, lines, len(log)-1)
				}
				// Head and tail, a good part of each.
				at := slices.Index(log, texts[0])
				if at*size < c.most/5 || (len(log)-at)*size < c.most/5 || len(log)*size > c.most*5/4 {
					t.Errorf("%d lines before the gap and %d after it", at, len(log)-at)
				}
				for i, l := range log[1:] {
					number := i
					if i+1 == at {
						continue
					}
					if i+1 > at {
						number += lines - 1
					}
					if !strings.HasPrefix(l, fmt.Sprintf("%06d", number)) {
						t.Fatalf("line %d is %q, want number %d", i, l, number)
					}
				}
			})
		})
	}
}

func TestTheProgramItselfNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newService()
		service.setFault(func(int, api.LogBatch) error { return api.Errorf(503, "away") })
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take), FlushBytes: 1 << 10, BatchBytes: 2 << 10, MemoryBytes: 4 << 10})
		began := time.Now()
		for range 1000 {
			s.Step(1).Line("the program does not wait")
		}
		if time.Since(began) > 0 {
			t.Errorf("it waited %s", time.Since(began))
		}
		service.setFault(nil)
		mustClose(t, s)
		if got := len(service.lines(1)); got != 1000 {
			t.Errorf("the service has %d lines", got)
		}
	})
}

// TestASlowServiceSlowsNothingButTheSpool: each answer takes 2 s.
func TestASlowServiceSlowsNothingButTheSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newService()
		slow := logstream.SinkFunc(func(ctx context.Context, step int, b api.LogBatch) error {
			time.Sleep(2 * time.Second)
			return service.take(ctx, step, b)
		})
		dir := t.TempDir()
		s := logstream.New(logstream.Options{
			Sink: slow, FlushBytes: 16 << 10, BatchBytes: 32 << 10, MemoryBytes: 128 << 10, SpoolDir: dir, SpoolCap: 8 << 20,
		})
		var want strings.Builder
		var waited time.Duration
		for burst := range 20 {
			began := time.Now()
			for i := range 2000 {
				text := fmt.Sprintf("%d %d %s\n", burst, i, strings.Repeat("x", 90))
				want.WriteString(text)
				_, _ = s.Step(1).Write([]byte(text))
			}
			waited += time.Since(began)
			time.Sleep(time.Minute) // the service gets through a good part of it
		}
		// Half a second is how long it takes to find out.
		if waited > 500*time.Millisecond {
			t.Errorf("the job waited %s", waited)
		}
		mustClose(t, s)
		if got, want := digest(service.text(1)), digest(want.String()); got != want {
			t.Errorf("the service has %s, want %s", got, want)
		}
	})
}

// TestAServiceThatKeepsUpIsWaitedForAtTheCap: nothing is dropped that would have
// had room a moment later.
func TestAServiceThatKeepsUpIsWaitedForAtTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newService()
		service.setFault(func(int, api.LogBatch) error { return errors.New("away for a moment") })
		sink := logstream.SinkFunc(func(ctx context.Context, step int, b api.LogBatch) error {
			time.Sleep(10 * time.Millisecond)
			return service.take(ctx, step, b)
		})
		s := logstream.New(logstream.Options{
			Sink: sink, FlushBytes: 4 << 10, BatchBytes: 8 << 10, MemoryBytes: 32 << 10, SpoolDir: t.TempDir(), SpoolCap: 640 << 10,
		})
		line := []byte(strings.Repeat("x", 99) + "\n")
		for range 3000 { // more than memory holds
			_, _ = s.Step(1).Write(line)
		}
		service.setFault(nil)
		time.Sleep(10 * time.Second) // the next try
		for range 50_000 {
			_, _ = s.Step(1).Write(line)
		}
		mustClose(t, s)
		if texts, _, _ := gaps(t, service.lines(1)); len(texts) > 0 || len(service.lines(1)) != 53_000 {
			t.Errorf("%d lines, gaps %q", len(service.lines(1)), texts)
		}
	})
}

func TestAHealthyServiceIsWaitedForAndNothingIsSpooled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newService()
		dir := t.TempDir()
		spooled := false
		service.setFault(func(int, api.LogBatch) error { // with the lock of service held
			time.Sleep(time.Millisecond)
			files, _ := os.ReadDir(dir)
			spooled = spooled || len(files) > 0
			return nil
		})
		s := logstream.New(logstream.Options{
			Sink: logstream.SinkFunc(service.take), FlushBytes: 4 << 10, BatchBytes: 8 << 10, MemoryBytes: 32 << 10, SpoolDir: dir,
		})
		line := []byte(strings.Repeat("x", 99) + "\n")
		for range 20_000 {
			_, _ = s.Step(1).Write(line)
		}
		mustClose(t, s)
		if spooled || len(service.lines(1)) != 20_000 {
			t.Errorf("spooled %v, %d lines", spooled, len(service.lines(1)))
		}
	})
}

func TestADamagedSpoolIsAGapThatSaysSo(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(f *os.File, size int64) error{
		"a flipped bit": func(f *os.File, size int64) error {
			var b [1]byte
			if _, err := f.ReadAt(b[:], size/2); err != nil {
				return err
			}
			b[0] ^= 4
			_, err := f.WriteAt(b[:], size/2)
			return err
		},
		"a torn tail": func(f *os.File, size int64) error { return f.Truncate(size - 100) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newService()
			service.setFault(func(int, api.LogBatch) error { return errors.New("away") })
			dir := t.TempDir()
			s := logstream.New(logstream.Options{
				Sink: logstream.SinkFunc(service.take), FlushBytes: 4 << 10, BatchBytes: 8 << 10, MemoryBytes: 32 << 10,
				SpoolDir: dir, RetryWait: time.Millisecond, RetryMaxWait: time.Millisecond,
			})
			w := s.Step(1)
			w.Line("the first")
			eventually(t, "a failed try", func() bool { return service.count() > 0 })
			const n = 3000
			for i := range n {
				_, _ = fmt.Fprintf(w, "%04d %s\n", i, strings.Repeat("x", 50))
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*.spool"))
			if len(files) != 1 {
				t.Fatalf("the spool has %v", files)
			}
			f, err := os.OpenFile(files[0], os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, _ := f.Stat()
			if err := damage(f, info.Size()); err != nil {
				t.Fatal(err)
			}
			service.setFault(nil)
			mustClose(t, s)

			seen, gaps, next := 0, 0, 0
			for _, l := range service.lines(1)[1:] {
				var missing, i int
				if k, _ := fmt.Sscanf(l, "[longshore: %d lines of this log are missing", &missing); k == 1 {
					gaps++
					next += missing
					continue
				}
				if _, err := fmt.Sscanf(l, "%d ", &i); err != nil || i != next {
					t.Fatalf("line %q, want number %d (%v)", l, next, err)
				}
				seen++
				next++
			}
			if next != n || gaps != 1 || seen < n/2 {
				t.Errorf("%d lines, %d gaps, the last is number %d", seen, gaps, next-1)
			}
		})
	}
}

func TestResynchronises(t *testing.T) {
	t.Parallel()
	expect := func(n int64) error {
		return &api.Error{Code: http.StatusConflict, Message: "elsewhere", ExpectedOffset: &n}
	}
	send := func(t *testing.T, s *logstream.Streams, w *logstream.Writer, lines ...string) {
		t.Helper()
		for _, l := range lines {
			w.Line("%s", l)
		}
		if err := s.Flush(closing(t)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("the service has lost lines", func(t *testing.T) {
		t.Parallel()
		service := newService()
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take)})
		send(t, s, s.Step(1), "a", "b", "c")
		service.mu.Lock()
		service.steps[1] = service.steps[1][:1]
		service.mu.Unlock()
		send(t, s, s.Step(1), "d")
		send(t, s, s.Step(1), "e")
		mustClose(t, s)
		want := []string{"a\n", "[longshore: 2 lines of this log are missing: the service no longer has them]\n", "d\n", "e\n"}
		if diff := cmp.Diff(want, service.lines(1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("the service has a part of the batch and refuses the whole", func(t *testing.T) {
		t.Parallel()
		service := newService()
		var offsets []int64
		service.fault = func(_ int, b api.LogBatch) error {
			offsets = append(offsets, b.Offset)
			if len(offsets) == 1 {
				service.steps[1] = append(service.steps[1], b.Lines[0])
				return expect(1)
			}
			return nil
		}
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take), FlushInterval: time.Hour})
		send(t, s, s.Step(1), "a", "b")
		send(t, s, s.Step(1), "c")
		mustClose(t, s)
		if diff := cmp.Diff([]string{"a\n", "b\n", "c\n"}, service.lines(1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int64{0, 1, 2}, offsets); diff != "" {
			t.Errorf("offsets (-want +got):\n%s", diff)
		}
	})
	t.Run("the service has all of it and refuses it", func(t *testing.T) {
		t.Parallel()
		service := newService()
		service.after = func(_ int, b api.LogBatch) error { return expect(b.Offset + int64(len(b.Lines))) }
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take)})
		send(t, s, s.Step(1), "a", "b")
		send(t, s, s.Step(1), "c")
		mustClose(t, s)
		if diff := cmp.Diff([]string{"a\n", "b\n", "c\n"}, service.lines(1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("another process wrote before", func(t *testing.T) {
		t.Parallel()
		service := newService()
		first := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take)})
		send(t, first, first.Step(0), "pulling", "starting")
		mustClose(t, first)
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take)})
		send(t, s, s.Continue(0), "the agent was restarted")
		send(t, s, s.Step(0), "ended")
		mustClose(t, s)
		if diff := cmp.Diff([]string{"pulling\n", "starting\n", "the agent was restarted\n", "ended\n"}, service.lines(0)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestWhatTheServiceDoesNotTakeIsAGap(t *testing.T) {
	t.Parallel()
	for _, code := range []int{400, 413, 422} {
		service := newService()
		service.fault = func(_ int, b api.LogBatch) error {
			for _, l := range b.Lines {
				if strings.Contains(l.Text, "poison") {
					return api.Errorf(code, "no")
				}
			}
			return nil
		}
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take)})
		w := s.Step(1)
		for _, l := range []string{"before", "poison", "after"} {
			w.Line("%s", l)
			if err := s.Flush(closing(t)); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, s)
		got := service.lines(1)
		if len(got) != 3 || got[0] != "before\n" || got[2] != "after\n" || !strings.HasPrefix(got[1], "[longshore: 1 lines of this log are missing") {
			t.Errorf("%d: the service has %q", code, got)
		}
	}
}

func TestARefusalIsFinal(t *testing.T) {
	t.Parallel()
	for _, code := range []int{401, 403, 404, 410} {
		service := newService()
		service.setFault(func(int, api.LogBatch) error { return api.Errorf(code, "go away") })
		s := logstream.New(logstream.Options{
			Sink: logstream.SinkFunc(service.take), FlushBytes: 1 << 10, BatchBytes: 2 << 10, MemoryBytes: 4 << 10,
		})
		w := s.Step(1)
		w.Line("hello")
		<-s.Stopped()
		for range 1000 { // far more than there is room for
			_, _ = w.Write([]byte(strings.Repeat("x", 99) + "\n"))
		}
		var e *api.Error
		if !errors.As(s.Err(), &e) || e.Code != code || s.Delivered() {
			t.Errorf("%d: Err() = %v, delivered %v", code, s.Err(), s.Delivered())
		}
		if err := s.Flush(t.Context()); !errors.As(err, &e) {
			t.Errorf("%d: Flush() = %v", code, err)
		}
		if err := s.Close(t.Context()); !errors.As(err, &e) {
			t.Errorf("%d: Close() = %v", code, err)
		}
		if n := service.count(); n != 1 {
			t.Errorf("%d: %d requests", code, n)
		}
	}
}

type busy struct{ error }

func (busy) RetryAfter() time.Duration { return 42 * time.Second }

func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newService()
		var at []time.Time
		service.setFault(func(int, api.LogBatch) error {
			if at = append(at, time.Now()); len(at) == 1 {
				return fmt.Errorf("busy: %w", busy{api.Errorf(429, "busy")})
			}
			return nil
		})
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take)})
		s.Step(1).Line("hello")
		mustClose(t, s)
		if len(at) != 2 || at[1].Sub(at[0]) != 42*time.Second {
			t.Errorf("tries at %v", at)
		}
	})
}

func TestCloseGivesUpWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{}, 1)
	stuck := logstream.SinkFunc(func(ctx context.Context, _ int, _ api.LogBatch) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	dir := t.TempDir()
	s := logstream.New(logstream.Options{
		Sink: stuck, FlushBytes: 1 << 10, BatchBytes: 2 << 10, MemoryBytes: 4 << 10, SpoolDir: dir, SpoolCap: 8 << 10,
	})
	var writer sync.WaitGroup
	writer.Go(func() {
		for range 1000 {
			_, _ = s.Step(1).Write([]byte(strings.Repeat("x", 99) + "\n"))
		}
	})
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "log lines") {
		t.Errorf("Close() = %v", err)
	}
	writer.Wait() // the writer that waited for room is free
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("the second Close() = %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.spool")); len(left) == 0 || s.Delivered() {
		t.Errorf("the spool leaves %v, delivered %v", left, s.Delivered())
	}
}
