package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
)

// serveBytes is the size of the entry that is downloaded.
const serveBytes = 1 << 30

// serve is the part of B7 that is the server's: an entry of the cache in a
// folder, downloaded by its URL, beside nginx and the same file.
func serve(ctx context.Context, b *bench, out io.Writer) (err error) {
	if _, err := exec.LookPath("nginx"); err != nil {
		return fmt.Errorf("nginx is the floor and is missing: install it: %w", err)
	}
	dir := filepath.Join(b.dir, "b7-serve")
	server, err := rig.StartServer(ctx, b.programs, dir, "")
	if err != nil {
		return err
	}
	defer func() { _ = server.Stop(context.WithoutCancel(ctx)) }()
	size := int64(b.samples(serveBytes, serveBytes/16))
	ours, path, err := cacheEntry(ctx, server, dir, size)
	if err != nil {
		return err
	}
	floor, stop, err := startNginx(ctx, dir, path)
	if err != nil {
		return err
	}
	defer stop()

	fmt.Fprintf(out, "Floor: nginx with sendfile, the same file of %d MiB, warm. Downloaded with curl, in turns.\n\n", size>>20)
	for _, connections := range []int{1, 4} {
		var a, z series
		for n := range b.samples(20, 3) + 1 {
			for _, one := range []struct {
				url  string
				into *series
			}{{ours, &a}, {floor, &z}} {
				took, err := download(ctx, one.url, size, connections)
				if err != nil {
					return err
				}
				if n > 0 { // the first one warms everything up
					*one.into = append(*one.into, took)
				}
			}
		}
		rate := func(s series) float64 { return float64(size) / 1e6 / s.p50().Seconds() }
		ratio := rate(a) / rate(z)
		fmt.Fprintf(out, "- %d connection(s), p50 of %d: ours %.0f MB/s, nginx %.0f MB/s, ratio %.2f (target 0.8): %s\n",
			connections, len(a), rate(a), rate(z), ratio, verdict(ratio >= 0.8))
	}
	return nil
}

// cacheEntry saves an entry as a job does, and returns its URL and its file.
func cacheEntry(ctx context.Context, server *rig.Server, dir string, size int64) (url, path string, err error) {
	if _, err := server.Create(ctx, stack, map[string]any{"operation": "preview"}); err != nil {
		return "", "", err
	}
	link := func(method string) (u api.CacheURLResponse, err error) {
		err = server.Do(ctx, http.MethodPost, "/api/stacks/"+string(stack)+"/deployments/cache/url", api.CacheURLRequest{Method: method, Key: "npm-bench"}, &u)
		return u, err
	}
	put, err := link(http.MethodPut)
	if err != nil {
		return "", "", err
	}
	content := io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte("bench"))), size)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, put.URL, content)
	if err != nil {
		return "", "", err
	}
	req.ContentLength = size
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", "", err
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	get, err := link(http.MethodGet)
	if err != nil || get.Size != size {
		return "", "", fmt.Errorf("the entry has %d bytes instead of %d: %w", get.Size, size, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "cache", "cache", "default", "*", "*", "npm-bench.tar.zst"))
	if err != nil || len(found) != 1 {
		return "", "", fmt.Errorf("the file of the entry is not below %s: %q, %w", dir, found, err)
	}
	return get.URL, found[0], nil
}

// startNginx serves the directory of a file.
func startNginx(ctx context.Context, dir, path string) (url string, stop func(), err error) {
	address, err := rig.FreeAddress(ctx)
	if err != nil {
		return "", nil, err
	}
	prefix := filepath.Join(dir, "nginx")
	if err := os.MkdirAll(prefix, 0o700); err != nil {
		return "", nil, err
	}
	config := filepath.Join(prefix, "nginx.conf")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // the file is for its owner alone
	}
	text := fmt.Sprintf(`daemon off;
%spid %[2]s/pid;
error_log stderr;
worker_processes auto;
events {}
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
	server { listen %[3]s; root %[4]s; }
}
`, user, prefix, address, filepath.Dir(path))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		return "", nil, err
	}
	p, err := rig.Start(ctx, prefix, "nginx", nginx, []string{"-p", prefix, "-c", config}, nil)
	if err != nil {
		return "", nil, err
	}
	stop = func() { _ = p.Stop(context.WithoutCancel(ctx)) }
	url = "http://" + address + "/" + filepath.Base(path)
	if err := rig.Ready(ctx, p, url); err != nil {
		stop()
		return "", nil, err
	}
	return url, stop, nil
}

// download gets a file in as many equal parts as there are connections.
func download(ctx context.Context, url string, size int64, connections int) (time.Duration, error) {
	begin := time.Now()
	results := make(chan error, connections)
	part := size / int64(connections)
	for n := range connections {
		go func() {
			from := int64(n) * part
			out, err := exec.CommandContext(ctx, "curl", "--fail", "--silent", "--show-error", "--output", os.DevNull,
				"--range", fmt.Sprintf("%d-%d", from, from+part-1), url).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("curl: %w: %s", err, out)
			}
			results <- err
		}()
	}
	var failed error
	for range connections {
		if err := <-results; err != nil {
			failed = err
		}
	}
	return time.Since(begin), failed
}
