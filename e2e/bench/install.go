package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/cachestore"
	"github.com/longshore-run/longshore/internal/jobcache"
)

// typescriptPackage is a program as Pulumi's template for TypeScript makes it,
// with one provider.
const typescriptPackage = `{"name":"infra","version":"1.0.0","main":"index.ts",
"dependencies":{"@pulumi/pulumi":"^3.0.0","@pulumi/random":"^4.0.0"},
"devDependencies":{"typescript":"^5.0.0","@types/node":"^20.0.0"}}`

// install measures what a warm cache makes of the installation of a TypeScript
// program: the second deployment beside the first.
func install(ctx context.Context, b *bench, out io.Writer) error {
	dir, remove, err := freshDisk(ctx, b.dir)
	if err != nil {
		return err
	}
	defer remove()
	key := bytes.Repeat([]byte("k"), 32)
	bucket, err := blob.OpenFolder("file://"+filepath.Join(dir, "cache"), blob.FolderOptions{Key: key})
	if err != nil {
		return err
	}
	defer bucket.Close()
	server, err := jobcache.New(jobcache.Options{
		Store: cachestore.New(cachestore.Options{Bucket: bucket}), Blobs: bucket.Handler(), Key: key,
		Address:  func(context.Context) (string, error) { return "127.0.0.1", nil },
		PortFile: filepath.Join(dir, "port"), InHand: func(string) bool { return true }, Log: zap.NewNop(),
	})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Run(serving)
	}()
	defer func() { stop(); <-done }()

	// The lock file, which is part of the program.
	lock, err := typescriptLock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	var cold, warm series
	for n := range b.samples(5, 1) {
		// Each pair has a stack of its own, and so an empty cache.
		way, err := server.Access(ctx, "job", fmt.Sprintf("acme/bench/stack-%d", n))
		if err != nil {
			return err
		}
		for _, second := range []bool{false, true} {
			took, err := b.installOnce(ctx, filepath.Join(dir, fmt.Sprintf("%d-%t", n, second)), way, lock, second)
			if err != nil {
				return err
			}
			if second {
				warm = append(warm, took)
			} else {
				cold = append(cold, took)
			}
		}
	}
	ratio := float64(warm.p50()) / float64(cold.p50())
	fmt.Fprintf(out, "A TypeScript program with @pulumi/pulumi and @pulumi/random. Ours: restore and install of a deployment that finds the cache warm, as the\n"+
		"executor's two commands; the cache is a folder on the same disk. Floor: what the first deployment spent in install alone, with packages of a\n"+
		"registry over the network. Both on an ext4 of their own, as in the section before.\n\n"+besideHeader)
	beside(out, "npm", warm, cold)
	fmt.Fprintf(out, "\n- ratio %.2f (target 0.25): %s\n", ratio, verdict(ratio <= 0.25))
	return nil
}

func typescriptLock(ctx context.Context, dir string) ([]byte, error) {
	if err := writeFiles(dir, map[string]string{"package.json": typescriptPackage}); err != nil {
		return nil, err
	}
	npm := exec.CommandContext(ctx, "npm", "install", "--package-lock-only", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("npm makes the lock file: %w\n%s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "package-lock.json"))
}

// installOnce runs the executor's commands in a new home and workspace and
// returns how long restore and install took; of the first job the install alone.
func (b *bench) installOnce(ctx context.Context, dir string, way api.JobCache, lock []byte, second bool) (time.Duration, error) {
	content, err := json.Marshal(way)
	if err != nil {
		return 0, err
	}
	work := filepath.Join(dir, "deployment")
	err = writeFiles(dir, map[string]string{
		"cache.json": string(content), "deployment/.git/HEAD": "", "deployment/Pulumi.yaml": "name: infra\nruntime: nodejs\n",
		"deployment/package.json": typescriptPackage, "deployment/package-lock.json": string(lock),
	})
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	var log bytes.Buffer
	run := func(args ...string) (time.Duration, error) {
		cmd := exec.CommandContext(ctx, b.programs.Executor, append(args, "--workDir="+work, "--stackIdentity="+way.Stack)...)
		cmd.Env = append(os.Environ(), "HOME="+filepath.Join(dir, "home"), "NPM_CONFIG_CACHE=", "XDG_CACHE_HOME=",
			"LONGSHORE_CACHE_FILE="+filepath.Join(dir, "cache.json"), "LONGSHORE_CACHE_STATE="+filepath.Join(dir, "state.json"))
		cmd.Stdout, cmd.Stderr = &log, &log
		began := time.Now()
		err := cmd.Run()
		took := time.Since(began)
		if err != nil {
			return took, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, log.String())
		}
		return took, nil
	}
	restored, err := run("cache", "restore")
	if err != nil {
		return 0, err
	}
	if hit := strings.Contains(log.String(), "cache: npm: hit: npm-installed-"); hit != second {
		return 0, fmt.Errorf("second job: %t, but the cache says\n%s", second, log.String())
	}
	installed, err := run("dependencies", "download")
	if err != nil {
		return 0, err
	}
	if second {
		return restored + installed, nil
	}
	_, err = run("cache", "save")
	return installed, err
}

func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
