package agent

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"go.uber.org/zap"
)

// executors finds the executor binary that backends put into jobs.
type executors struct {
	path     string   // chosen by the operator; empty to look
	beside   []string // directories to look in
	cache    string   // where a downloaded one goes
	download func(ctx context.Context, arch string) (io.ReadCloser, error)
	log      *zap.Logger

	mu    sync.Mutex        // one download at a time
	found map[string]string // by architecture
}

// maxExecutorBytes bounds what is downloaded. The real thing is a tenth of it.
const maxExecutorBytes = 256 << 20

func newExecutors(path, workingDirectory string, download func(context.Context, string) (io.ReadCloser, error), log *zap.Logger) *executors {
	e := &executors{
		path: path, cache: filepath.Join(workingDirectory, "executor"),
		download: download, log: log, found: map[string]string{},
	}
	if program, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(program); err == nil {
			program = real
		}
		e.beside = append(e.beside, filepath.Dir(program))
	}
	e.beside = append(e.beside, workingDirectory)
	return e
}

// Path is a backend.ExecutorSource. It answers, in this order: the configured
// path; longshore-executor-linux-<arch> or, for this machine's architecture,
// longshore-executor beside the agent; the same in the working directory; what
// it downloads from the service, once in the life of the agent.
func (e *executors) Path(ctx context.Context, arch string) (string, error) {
	if e.path != "" {
		if _, err := os.Stat(e.path); err != nil {
			return "", fmt.Errorf("executor_path: %w", err)
		}
		return e.path, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if path := e.found[arch]; path != "" {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := e.find(ctx, arch)
	if err != nil {
		return "", fmt.Errorf("no executor for linux/%s: %w: put longshore-executor-linux-%s beside the agent or set executor_path", arch, err, arch)
	}
	e.found[arch] = path
	return path, nil
}

func (e *executors) find(ctx context.Context, arch string) (string, error) {
	for _, dir := range e.beside {
		path := filepath.Join(dir, "longshore-executor-linux-"+arch)
		if regular(path) {
			return path, nil
		}
		path = filepath.Join(dir, "longshore-executor")
		if regular(path) && runtime.GOOS == "linux" && runtime.GOARCH == arch {
			return path, nil
		}
	}
	path := filepath.Join(e.cache, "longshore-executor-linux-"+arch)
	err := e.fetch(ctx, arch, path)
	if err != nil && regular(path) {
		e.log.Warn("the executor could not be downloaded; using the one of last time", zap.Error(err))
		return path, nil
	}
	return path, err
}

// fetch downloads the executor to path, whole or not at all.
func (e *executors) fetch(ctx context.Context, arch, path string) error {
	if err := os.MkdirAll(e.cache, 0o700); err != nil {
		return fmt.Errorf("download it: %w", err)
	}
	body, err := e.download(ctx, arch)
	if err != nil {
		return fmt.Errorf("download it: %w", err)
	}
	defer body.Close()
	file, err := os.CreateTemp(e.cache, ".download-*")
	if err != nil {
		return fmt.Errorf("download it: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already, when all went well
	defer file.Close()
	n, err := io.Copy(file, io.LimitReader(body, maxExecutorBytes+1))
	if err == nil && n > maxExecutorBytes {
		err = fmt.Errorf("more than %d MiB", maxExecutorBytes>>20)
	}
	if err == nil {
		err = errors.Join(file.Chmod(0o755), file.Sync(), file.Close())
	}
	if err == nil {
		err = ours(file.Name(), arch)
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("download it: %w", err)
	}
	return nil
}

const module = "github.com/longshore-run/longshore"

// ours makes sure that path is a program of this module for linux on arch. The
// service may be another one, whose executor has the same name and cannot run
// our jobs.
func ours(path, arch string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return errors.New("the service sent something that is no longshore-executor")
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if info.Main.Path != module || settings["GOOS"] != "linux" || settings["GOARCH"] != arch {
		return fmt.Errorf("the service sent %s for %s/%s, which is no longshore-executor", info.Path, settings["GOOS"], settings["GOARCH"])
	}
	return nil
}

func regular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
