package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/longshore-run/longshore/internal/cache"
)

// cachedPackages make a node_modules of some 50,000 files.
const cachedPackages = `{"name":"bench","version":"1.0.0","private":true,"dependencies":{"@pulumi/aws":"6.83.0","typescript":"5.9.2",
"aws-sdk":"2.1692.0","googleapis":"150.0.1","@mui/icons-material":"6.4.8"}}`

// cacheSpeed is B7: saving and restoring what package managers made.
func cacheSpeed(ctx context.Context, b *bench, out io.Writer) error {
	for _, program := range []string{"npm", "tar", "zstd"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("needs %s: %w", program, err)
		}
	}
	kept, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	kept = filepath.Join(kept, "longshore-bench")
	nodeModules, err := installed(ctx, filepath.Join(kept, "npm"), "node_modules", func(dir string) ([]string, error) {
		return []string{"npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps"},
			os.WriteFile(filepath.Join(dir, "package.json"), []byte(cachedPackages), 0o644)
	})
	if err != nil {
		return err
	}
	modules, err := installed(ctx, filepath.Join(kept, "go"), "mod", func(dir string) ([]string, error) {
		for _, name := range []string{"go.mod", "go.sum"} {
			content, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				return nil, err
			}
		}
		return []string{"env", "GOMODCACHE=" + filepath.Join(dir, "mod"), "GOFLAGS=-mod=mod", "go", "mod", "download"}, nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Floor: `tar | zstd -1 -T0` to a file, and `zstd -dc | tar x` of it. Ours: the engine of the cache in a process of its own, with the archive\n"+
		"put to and got from a server on loopback that keeps it in a file of the same disk. Interleaved. What is saved is in the page cache, as an\n"+
		"install leaves it; the archives that are restored are not. Each restore goes into a new directory of a fresh ext4 with a journal (in a file,\n"+
		"where root may mount it): without a journal, ext4 passes over each inode that was freed within the last minutes, and where many were,\n"+
		"creating files takes ten times as long, with ours and with the floor. Memory is the peak resident memory of our process.\n"+
		"Only ours pays for a transfer, with a server on the same processors: that tells where the archive is large and there are few files.\n\n")
	fmt.Fprint(out, "| what | samples | floor p50 | floor p95 | ours p50 | ours p95 | ratio p50 | memory | archive, floor | archive, ours |\n|---|---|---|---|---|---|---|---|---|---|\n")
	var verdicts strings.Builder
	for _, what := range [][2]string{{"node_modules", nodeModules}, {"Go module cache", modules}} {
		if err := measureCache(ctx, b, out, &verdicts, what[0], what[1]); err != nil {
			return fmt.Errorf("%s: %w", what[0], err)
		}
	}
	fmt.Fprintf(out, "\n%s", verdicts.String())
	return nil
}

// installed returns a folder that an installer made in an earlier run, or makes
// it now.
func installed(ctx context.Context, dir, folder string, prepare func(dir string) ([]string, error)) (string, error) {
	path, done := filepath.Join(dir, folder), filepath.Join(dir, "done")
	if _, err := os.Stat(done); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	args, err := prepare(dir)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, said)
	}
	return path, os.WriteFile(done, nil, 0o644)
}

func measureCache(ctx context.Context, b *bench, out io.Writer, verdicts io.Writer, name, dir string) error {
	work, remove, err := freshDisk(ctx, b.dir)
	if err != nil {
		return err
	}
	defer remove()
	store, err := serveBucket(work)
	if err != nil {
		return err
	}
	defer store.close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	floorArchive, ourArchive := filepath.Join(work, "floor.tar.zst"), filepath.Join(work, "ours")
	base := filepath.Base(dir)
	var saveFloor, saveOurs, restoreFloor, restoreOurs series
	var savePeak, restorePeak int64
	pipe := func(line string, args ...string) []string {
		return append([]string{"bash", "-c", "set -o pipefail; " + line, "-"}, args...)
	}
	for i := range b.samples(5, 1) {
		floorDir, ourDir := filepath.Join(work, fmt.Sprintf("floor-%d", i)), filepath.Join(work, fmt.Sprintf("ours-%d", i))
		if err := os.Mkdir(floorDir, 0o755); err != nil {
			return err
		}
		for _, run := range []struct {
			args []string
			took *series
			peak *int64
			cold string
		}{
			{pipe(`tar -C "$1" -cf - "$2" | zstd -q -1 -T0 -f -o "$3"`, filepath.Dir(dir), base, floorArchive), &saveFloor, nil, ""},
			{[]string{self, cacheRun, "save", store.url, base, dir}, &saveOurs, &savePeak, ""},
			{pipe(`zstd -qdc "$1" | tar -C "$2" -xf -`, floorArchive, floorDir), &restoreFloor, nil, floorArchive},
			{[]string{self, cacheRun, "restore", store.url, base, filepath.Join(ourDir, base)}, &restoreOurs, &restorePeak, ourArchive},
		} {
			unix.Sync()
			if run.cold != "" {
				if err := forgetPages(run.cold); err != nil {
					return err
				}
			}
			u, err := watched(ctx, run.args)
			if err != nil {
				return err
			}
			*run.took = append(*run.took, u.took)
			if run.peak != nil {
				*run.peak = max(*run.peak, u.own)
			}
		}
	}
	files, bytes, err := counted(dir)
	if err != nil {
		return err
	}
	floorSize, ourSize := fileSize(floorArchive), fileSize(ourArchive)
	row := func(what string, floor, ours series, peak int64) float64 {
		ratio := float64(ours.p50()) / float64(floor.p50())
		fmt.Fprintf(out, "| %s, %s (%d files, %s) | %d | %.2f s | %.2f s | %.2f s | %.2f s | %.2f | %s | %s | %s |\n", what, name, files, mebibytes(bytes), len(ours),
			floor.p50().Seconds(), floor.p95().Seconds(), ours.p50().Seconds(), ours.p95().Seconds(), ratio, mebibytes(peak), mebibytes(floorSize), mebibytes(ourSize))
		return ratio
	}
	save, restore := row("save", saveFloor, saveOurs, savePeak), row("restore", restoreFloor, restoreOurs, restorePeak)
	fmt.Fprintf(verdicts, "- %s: save %.2f x (target 1.1 x): %s; restore %.2f x (target 0.7 x): %s; memory (target 96 MiB): %s\n", name,
		save, verdict(save <= 1.1), restore, verdict(restore <= 0.7), verdict(max(savePeak, restorePeak) < 96<<20))
	return nil
}

// freshDisk is a directory on a file system of its own, where this user may mount
// one, or else just a directory.
func freshDisk(ctx context.Context, dir string) (at string, remove func(), err error) {
	at, err = os.MkdirTemp(dir, "disk-")
	if err != nil {
		return "", nil, err
	}
	image := at + ".img"
	remove = func() { os.RemoveAll(at) }
	for _, line := range [][]string{
		{"truncate", "-s", "24G", image},
		{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image},
		{"mount", "-o", "loop", image, at},
	} {
		if said, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: no file system of its own: %s: %v: %s\n", line[0], err, said)
			os.Remove(image)
			return at, remove, nil
		}
	}
	return at, func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil { // what an interrupted run left may be at work in it
			fmt.Fprintf(os.Stderr, "bench: unmount %s: %v\n", at, err)
			return
		}
		os.Remove(image)
		os.Remove(at)
	}, nil
}

// forgetPages takes a file out of the page cache.
func forgetPages(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// counted returns how many files there are in a directory, and how large they are.
func counted(dir string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		bytes += info.Size()
		return nil
	})
	return files, bytes, err
}

// bucket holds one object, kept in the file "ours".
type bucket struct {
	url   string
	close func()
}

func serveBucket(dir string) (*bucket, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "ours")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.ServeFile(w, r, path)
			return
		}
		file, err := os.Create(path)
		if err == nil {
			_, err = io.Copy(file, r.Body)
			file.Close()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	return &bucket{url: "http://" + listener.Addr().String() + "/ours", close: func() {
		server.Close()
		<-ended
	}}, nil
}

// cacheRun as the first argument makes this program one save or restore, so that
// its memory can be seen.
const cacheRun = "cache-run"

func runCache(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("want what, url, name and path")
	}
	c, err := cache.New(cache.Options{Service: oneURL(args[1])})
	if err != nil {
		return err
	}
	defer c.Close()
	r := cache.Recipe{Manager: "bench", Key: "bench", Folders: []cache.Folder{{Name: args[2], Path: args[3]}}}
	var o cache.Outcome
	if args[0] == "save" {
		o = c.Save(ctx, r, cache.Outcome{})
	} else {
		o = c.Restore(ctx, r)
	}
	if o.Result != cache.Saved && o.Result != cache.Hit {
		return fmt.Errorf("%s", o)
	}
	return nil
}

// oneURL is a service that has one URL.
type oneURL string

func (u oneURL) URL(context.Context, string, string, string) (cache.Link, error) {
	return cache.Link{URL: string(u), Chunked: true}, nil // as a folder takes it
}
func (oneURL) Drop(context.Context, string) error { return nil }
