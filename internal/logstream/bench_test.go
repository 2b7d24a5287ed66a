package logstream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/logstream"
)

// sinkhole takes batches and does nothing with them.
type sinkhole struct{ bytes int64 }

func (s *sinkhole) RawLogs(_ context.Context, _ int, body []byte) error {
	s.bytes += int64(len(body))
	return nil
}

func fiftySecrets() (secrets []string) {
	for i := range 50 {
		secrets = append(secrets, fmt.Sprintf("s3cr3t-%02d-%x", i, i*7919*104729))
	}
	return secrets
}

// printed is a pipe's worth of 100-byte lines.
func printed() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < 64<<10; i++ {
		line := fmt.Sprintf("%06d updating aws:s3:Bucket (my-bucket-%x) %s", i, i*7919, strings.Repeat("+ created ", 10))
		b.WriteString(line[:99] + "\n")
	}
	return b.Bytes()
}

func BenchmarkWrite(b *testing.B) {
	data := printed()
	for _, secrets := range []int{0, 50} {
		b.Run(fmt.Sprintf("secrets=%d", secrets), func(b *testing.B) {
			s := logstream.New(logstream.Options{Sink: &sinkhole{}, Secrets: fiftySecrets()[:secrets]})
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, _ = s.Step(1).Write(data)
			}
			if err := s.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// TestMemoryAtFullSpeed sends 64 MiB over HTTP, to a service that
// decodes it, and looks at what the process keeps: both ends and the test.
func TestMemoryAtFullSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	var lines int64
	sink := serve(t, newService(), func(w http.ResponseWriter, r *http.Request, _ func()) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		b, err := api.DecodeLogBatch(body)
		if err != nil || b.Offset != lines {
			t.Errorf("offset %d, want %d, %v", b.Offset, lines, err)
		}
		lines += int64(len(b.Lines))
		fmt.Fprint(w, "{}")
	})
	s := logstream.New(logstream.Options{Sink: sink, Secrets: fiftySecrets(), SpoolDir: t.TempDir()})
	data := printed()
	began := time.Now()
	const total = 64 << 20
	var want int64
	var peak, m runtime.MemStats
	for n := 0; n < total; n += len(data) {
		_, _ = s.Step(1).Write(data)
		want += int64(bytes.Count(data, []byte("\n")))
		if n%(4<<20) < len(data) {
			if runtime.ReadMemStats(&m); m.HeapInuse > peak.HeapInuse {
				peak = m
			}
		}
	}
	mustClose(t, s)
	if lines != want {
		t.Errorf("%d lines arrived, want %d", lines, want)
	}
	t.Logf("%.0f MB/s with both ends in one process, heap in use up to %d MiB", total/time.Since(began).Seconds()/1e6, peak.HeapInuse>>20)
	if peak.HeapInuse > 64<<20 {
		t.Errorf("heap in use up to %d MiB", peak.HeapInuse>>20)
	}
}
