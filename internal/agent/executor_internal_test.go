package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestWhereTheExecutorComesFrom(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("downloads this test program as if it were the executor, which must be for linux")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	genuine, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	arch := runtime.GOARCH
	sends := func(content []byte, after error) func(context.Context, string) (io.ReadCloser, error) {
		return func(context.Context, string) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(content), failing{after})), nil
		}
	}
	for name, tc := range map[string]struct {
		files    []string // in the working directory
		path     string
		download func(context.Context, string) (io.ReadCloser, error)
		want     string // below the working directory
		wantErr  string
	}{
		"the configured one":                   {path: self, want: self},
		"a configured one that is not there":   {path: "/nowhere", wantErr: "executor_path"},
		"one by its architecture":              {files: []string{"longshore-executor", "longshore-executor-linux-" + arch}, want: "longshore-executor-linux-" + arch},
		"one for this machine":                 {files: []string{"longshore-executor"}, want: "longshore-executor"},
		"the service's":                        {download: sends(genuine, nil), want: "executor/longshore-executor-linux-" + arch},
		"not another program of the same name": {download: sends([]byte("#!/bin/sh\n"), nil), wantErr: "no longshore-executor"},
		"not half of one":                      {download: sends(genuine[:len(genuine)/2], io.ErrUnexpectedEOF), wantErr: "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, f := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, f), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			e := newExecutors(tc.path, dir, tc.download, zap.NewNop())
			e.beside = []string{dir} // not where the test program happens to lie
			got, err := e.Path(t.Context(), arch)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("Path() = %q, %v, want %q", got, err, tc.wantErr)
				}
				if left, _ := filepath.Glob(filepath.Join(dir, "executor", "*")); len(left) != 0 {
					t.Errorf("left behind: %q", left)
				}
				return
			}
			want := tc.want
			if !filepath.IsAbs(want) {
				want = filepath.Join(dir, want)
			}
			if got != want || err != nil {
				t.Errorf("Path() = %q, %v, want %q", got, err, want)
			}
		})
	}
}

func TestADownloadedExecutorIsUsedAgainWhenTheServiceIsAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kept := filepath.Join(dir, "executor", "longshore-executor-linux-arm64")
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	e := newExecutors("", dir, func(context.Context, string) (io.ReadCloser, error) {
		return nil, errors.New("connection refused")
	}, zap.NewNop())
	e.beside = nil
	if got, err := e.Path(t.Context(), "arm64"); got != kept || err != nil {
		t.Errorf("Path() = %q, %v, want the one of last time", got, err)
	}
	if _, err := e.Path(t.Context(), "amd64"); err == nil || !strings.Contains(err.Error(), "executor_path") {
		t.Errorf("Path() = %v, want what to do", err)
	}
}

// failing ends with err, or well when there is none.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]bool{
		"http://localhost:8480": true, "http://127.0.0.1:1": true, "http://[::1]:1": true,
		"http://10.0.0.1": false, "https://api.pulumi.com": false, "http://server:8480": false,
	} {
		if got := loopback(base); got != want {
			t.Errorf("loopback(%q) = %v, want %v", base, got, want)
		}
	}
}
