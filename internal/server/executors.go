package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/longshore-run/longshore/internal/api"
)

// downloadTimeout is what a slow line gets for the executor, above the time of
// other answers.
const downloadTimeout = 10 * time.Minute

// executorName is the name of the executor's file, without its processor.
const executorName = "longshore-executor"

// Executors are the executor programs that jobs may download. Each is
// compressed when it is first asked for and kept compressed, some 6 MiB, until
// its file changes. Safe for concurrent use.
type Executors struct {
	dirs []string

	mu       sync.Mutex // held while compressing: others wait for the same result
	archives map[string]*archive
}

// NewExecutors looks for executors in dirs, the first match wins. In each
// longshore-executor-linux-ARCH comes first, then longshore-executor when it is
// for that processor. Empty names are left out.
func NewExecutors(dirs ...string) *Executors {
	e := &Executors{archives: map[string]*archive{}}
	for _, dir := range dirs {
		if dir != "" {
			e.dirs = append(e.dirs, dir)
		}
	}
	return e
}

// archive is one compressed executor.
type archive struct {
	path    string
	size    int64
	changed time.Time
	etag    string
	gzip    []byte
}

// machine returns the ELF name of a processor that executors are built for.
func machine(arch string) (elf.Machine, bool) {
	switch arch {
	case "amd64":
		return elf.EM_X86_64, true
	case "arm64":
		return elf.EM_AARCH64, true
	}
	return elf.EM_NONE, false
}

func (e *Executors) archive(ctx context.Context, arch string) (*archive, error) {
	if arch == "" {
		arch = "amd64"
	}
	if _, ok := machine(arch); !ok {
		return nil, api.Errorf(http.StatusBadRequest, "arch: %q is not a processor that executors are built for, want amd64 or arm64", arch)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	path, info, err := e.find(arch)
	if err != nil {
		return nil, err
	}
	if a := e.archives[arch]; a != nil && a.path == path && a.size == info.Size() && a.changed.Equal(info.ModTime()) {
		return a, nil
	}
	a, err := compress(ctx, path, info)
	if err != nil {
		return nil, fmt.Errorf("compress executor: %w", err)
	}
	e.archives[arch] = a
	return a, nil
}

func (e *Executors) find(arch string) (string, fs.FileInfo, error) {
	for _, dir := range e.dirs {
		named := filepath.Join(dir, executorName+"-linux-"+arch)
		switch info, err := os.Stat(named); {
		case err == nil && info.Mode().IsRegular():
			return named, info, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return "", nil, fmt.Errorf("look for executor: %w", err)
		}
		plain := filepath.Join(dir, executorName)
		if info, err := os.Stat(plain); err == nil && info.Mode().IsRegular() && builtFor(plain, arch) {
			return plain, info, nil
		}
	}
	return "", nil, api.Errorf(http.StatusNotFound, "this server has no executor for linux/%s: put %s-linux-%s into the directory of --executor-dir, or beside longshore-server", arch, executorName, arch)
}

// builtFor reports whether the program at path is a Linux one for arch.
func builtFor(path, arch string) bool {
	file, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	want, _ := machine(arch)
	return file.Machine == want
}

func compress(ctx context.Context, path string, info fs.FileInfo) (*archive, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var out bytes.Buffer
	sum := sha256.New()
	zip := gzip.NewWriter(&out)
	if _, err := io.Copy(io.MultiWriter(zip, sum), contextReader{ctx, file}); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return &archive{
		path: path, size: info.Size(), changed: info.ModTime(), gzip: out.Bytes(),
		etag: `"` + hex.EncodeToString(sum.Sum(nil)[:16]) + `"`,
	}, nil
}

// serve answers with a, or with the part of it that r asks for.
func (a *archive) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/gzip")
	w.Header().Set("ETag", a.etag)
	http.ServeContent(w, r, "", a.changed, bytes.NewReader(a.gzip))
}

// contextReader stops reading when its context ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
