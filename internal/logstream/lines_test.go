package logstream_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/logstream"
)

func TestLines(t *testing.T) {
	t.Parallel()
	kib := func(n int) string { return strings.Repeat("x", n<<10) }
	for name, tt := range map[string]struct {
		writes []string
		want   []string
	}{
		"one line":                        {[]string{"a\n"}, []string{"a\n"}},
		"several lines in one write":      {[]string{"a\n\nb\n"}, []string{"a\n", "\n", "b\n"}},
		"a line in several writes":        {[]string{"a", "b", "c\nd", "\n"}, []string{"abc\n", "d\n"}},
		"a last line without a newline":   {[]string{"a\nb"}, []string{"a\n", "b"}},
		"carriage returns stay":           {[]string{"10%\r50", "%\r\n"}, []string{"10%\r50%\r\n"}},
		"nothing":                         {[]string{"", ""}, nil},
		"the longest line":                {[]string{kib(64)[1:] + "\n"}, []string{kib(64)[1:] + "\n"}},
		"a line that is one too long":     {[]string{kib(64) + "\n"}, []string{kib(64), "\n"}},
		"no newline at all":               {[]string{kib(100), kib(100)}, []string{kib(64), kib(64), kib(64), kib(8)}},
		"a long line in small writes":     {strings.SplitAfter(strings.Repeat(strings.Repeat("x", 1023)+"y", 65), "y"), []string{strings.Repeat(strings.Repeat("x", 1023)+"y", 64), strings.Repeat("x", 1023) + "y"}},
		"no cut inside a rune":            {[]string{"x" + strings.Repeat("日", 30000) + "\n"}, []string{"x" + strings.Repeat("日", 21845), strings.Repeat("日", 30000-21845) + "\n"}},
		"a rune in two writes":            {[]string{"\xe6\x97", "\xa5\n"}, []string{"日\n"}},
		"bytes that are no UTF-8":         {[]string{"a\xff\xfeb\n"}, []string{"a\uFFFD\uFFFDb\n"}},
		"a long line that is no UTF-8":    {[]string{strings.Repeat("\xff", 64<<10) + "\n"}, []string{strings.Repeat("\uFFFD", 21845), strings.Repeat("\uFFFD", 21845), strings.Repeat("\uFFFD", 21845), "\uFFFD", "\n"}},
		"a secret":                        {[]string{"pw hunter2!\n"}, []string{"pw [secret]!\n"}},
		"a secret over two writes":        {[]string{"pw hun", "ter2!\n"}, []string{"pw [secret]!\n"}},
		"the beginning of a secret alone": {[]string{"pw hun"}, []string{"pw hun"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := newService()
			s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take), Secrets: []string{"hunter2"}})
			w := s.Step(3)
			for _, p := range tt.writes {
				if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
					t.Fatalf("Write() = %d, %v", n, err)
				}
			}
			mustClose(t, s)
			if diff := cmp.Diff(tt.want, service.lines(3)); diff != "" {
				t.Errorf("(-want +got):\n%.2000s", diff)
			}
			for _, l := range service.lines(3) {
				if !utf8.ValidString(l) || len(l) > api.MaxLineBytes {
					t.Errorf("a line of %d bytes, valid %v", len(l), utf8.ValidString(l))
				}
			}
		})
	}
}

func TestLinesOfTheProgramItself(t *testing.T) {
	t.Parallel()
	service := newService()
	s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take), Secrets: []string{"hunter2"}})
	w := s.Step(1)
	w.Line("$ %s", "pulumi up hunter2")
	_, _ = w.Write([]byte("working"))
	w.Line("stopping in %d s\nin two lines\n", 3)
	_, _ = w.Write([]byte(" on\nhun"))
	w.Line("between")
	_, _ = w.Write([]byte("ter2\n"))
	_ = w.Close()
	w.Line("the last word")
	mustClose(t, s)
	want := []string{
		"$ pulumi up [secret]\n", "working\n", "stopping in 3 s\n", "in two lines\n", " on\n", "between\n", "[secret]\n", "the last word\n",
	}
	if diff := cmp.Diff(want, service.lines(1)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSecretsAddedLater(t *testing.T) {
	t.Parallel()
	service := newService()
	s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take)})
	w := s.Step(1)
	_, _ = w.Write([]byte("hunter2\n"))
	s.AddSecret("hunter2", "")
	_, _ = w.Write([]byte("hunter2\n"))
	mustClose(t, s)
	if got, want := service.text(1), "hunter2\n[secret]\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWritersOfManyGoroutines(t *testing.T) {
	t.Parallel()
	service := newService()
	s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take), FlushBytes: 1 << 10, BatchBytes: 4 << 10, MemoryBytes: 16 << 10})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for step := range 3 {
				for range 200 {
					_, _ = s.Step(step).Write([]byte(strings.Repeat("line\n", 5)))
					s.Step(step).Line("line")
				}
			}
		})
	}
	all.Wait()
	mustClose(t, s)
	for step := range 3 {
		if got := len(service.lines(step)); got != 4*200*6 || strings.ReplaceAll(service.text(step), "line\n", "") != "" {
			t.Errorf("step %d has %d lines", step, got)
		}
	}
}

// TestWhenLinesAreSent uses a service that needs no time, and a clock of its own.
func TestWhenLinesAreSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var sent []string
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(func(_ context.Context, _ int, b api.LogBatch) error {
			for _, l := range b.Lines {
				if l.Time.Sub(began) > time.Since(began) {
					t.Errorf("a line of the future: %v", l.Time)
				}
				sent = append(sent, strings.TrimSpace(l.Text[:min(8, len(l.Text))])+"@"+time.Since(began).String())
			}
			return nil
		})})
		at := func(d time.Duration, text string) {
			time.Sleep(time.Until(began.Add(d)))
			_, _ = s.Step(1).Write([]byte(text))
			synctest.Wait()
		}
		at(time.Second, "first\n")                         // after a silence: almost at once
		at(1100*time.Millisecond, "second\n")              // soon after: waits for the interval
		at(1200*time.Millisecond, "third\n")               // with the second
		at(2*time.Second, "partial")                       // no line yet
		at(3*time.Second, " line\n")                       // now it is
		at(3010*time.Millisecond, "with it\n")             // in the same batch
		at(5*time.Second, strings.Repeat("much\n", 10000)) // does not wait
		time.Sleep(time.Second)
		if len(sent) < 6 {
			t.Fatalf("sent %v", sent)
		}
		want := []string{"first@1.025s", "second@1.275s", "third@1.275s", "partial@3.025s", "with it@3.025s", "much@5s"}
		if diff := cmp.Diff(want, sent[:6]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if len(sent) != 5+10000 {
			t.Errorf("%d lines were sent", len(sent))
		}
		mustClose(t, s)
	})
}

func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newService()
		s := logstream.New(logstream.Options{Sink: logstream.SinkFunc(service.take), FlushInterval: time.Hour, RetryWait: time.Second})
		if err := s.Flush(t.Context()); err != nil {
			t.Errorf("Flush() of nothing = %v", err)
		}
		w := s.Step(0)
		w.Line("one")
		w.Line("two")
		_, _ = w.Write([]byte("a beginning"))
		if s.Delivered() {
			t.Error("delivered before it was sent")
		}
		began := time.Now()
		if err := s.Flush(t.Context()); err != nil || service.text(0) != "one\ntwo\n" {
			t.Errorf("Flush() = %v, the service has %q", err, service.text(0))
		}
		if time.Since(began) > 0 || s.Delivered() {
			t.Errorf("Flush() took %s, delivered %v", time.Since(began), s.Delivered())
		}
		service.setFault(func(int, api.LogBatch) error { return errors.New("no route") })
		w.Line("three")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := s.Flush(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no route") {
			t.Errorf("Flush() = %v", err)
		}
		service.setFault(nil)
		mustClose(t, s)
		if got, want := service.text(0), "one\ntwo\na beginning\nthree\n"; got != want {
			t.Errorf("the service has %q, want %q", got, want)
		}
	})
}
