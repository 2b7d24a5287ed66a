package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/longshore-run/longshore/e2e/gitserver"
)

// Shape of the repository that is checked out: folders of sourceFolder files
// each, sourceProject of which are the project's, and later commits that change
// some files of each.
const (
	sourceFolder  = 100
	sourceProject = 5
)

// taking is what one process took.
type taking struct {
	took time.Duration
	all  int64 // peak resident memory of it and what it started, together, in bytes
	own  int64 // that of itself
}

// source is B6: checking out one commit of a large repository.
func source(ctx context.Context, b *bench, out io.Writer) error {
	folders, commits := b.samples(500, 50), b.samples(200, 10)
	disk, remove, err := freshDisk(ctx, b.dir)
	if err != nil {
		return err
	}
	defer remove()
	root := filepath.Join(disk, "b6")
	bare, err := largeRepository(ctx, root, folders, commits)
	if err != nil {
		return err
	}
	objects, err := gitserver.Git(ctx, "-C", bare, "count-objects", "-v")
	if err != nil {
		return err
	}
	handler, err := gitserver.Handler(ctx, root, nil)
	if err != nil {
		return err
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	repository, dir := server.URL+"/large.git", filepath.Join(disk, "b6-work")
	far, err := overLink(handler)
	if err != nil {
		return err
	}
	defer far.Close()
	remote := far.URL + "/large.git"
	get := func(env []string, repository string, more ...string) []string {
		args := []string{b.programs.Executor, "getsource", "git", "--repoURL=" + repository, "--workDir=" + dir}
		return slices.Concat([]string{"env"}, env, args, more)
	}
	ours := func(engine string, more ...string) []string {
		return get([]string{"LONGSHORE_SOURCE_ENGINE=" + engine}, repository, append(more, "--branch=main")...)
	}
	fill := func(name, commit string) (env []string, err error) {
		return fillMirror(ctx, filepath.Join(root, name), dir, func(env []string) []string { return get(env, repository, "--commit="+commit) })
	}
	newest, err := gitserver.Git(ctx, "-C", bare, "rev-parse", "main")
	if err != nil {
		return err
	}
	before, err := gitserver.Git(ctx, "-C", bare, "rev-parse", "main~1")
	if err != nil {
		return err
	}
	warm, err := fill("warm", newest)
	if err != nil {
		return err
	}
	older, err := fill("older", before)
	if err != nil {
		return err
	}
	files, err := onlyFiles(ctx, root, bare, dir)
	if err != nil {
		return err
	}
	runs := map[string][]string{
		"git clone --depth 1":       {"git", "clone", "--quiet", "--depth", "1", "--branch", "main", repository, dir},
		"ours, git":                 ours("git"),
		"ours, git, repoDir 1%":     ours("git", "--repoDir=project"),
		"go-git PlainClone depth 1": {self, plainClone, repository, dir},
		"ours, go-git":              ours("go-git"),

		"git init, and read-tree of a pack that is there": files,
		"ours, git, from the mirror":                      get(warm, repository, "--branch=main"),
		"ours, git, the commit before from the mirror":    get(older, repository, "--branch=main"),
		"git clone --depth 1, link":                       {"git", "clone", "--quiet", "--depth", "1", "--branch", "main", remote, dir},
		"ours, git, link":                                 get(nil, remote, "--branch=main"),
		"ours, git, from the mirror, link":                get(warm, remote, "--branch=main"),
	}
	order := []string{
		"git clone --depth 1", "ours, git", "ours, git, repoDir 1%", "go-git PlainClone depth 1", "ours, go-git",
		"git init, and read-tree of a pack that is there", "ours, git, from the mirror", "ours, git, the commit before from the mirror",
		"git clone --depth 1, link", "ours, git, link", "ours, git, from the mirror, link",
	}
	took, all, own := map[string]series{}, map[string]int64{}, map[string]int64{}
	for i := range b.samples(5, 1) {
		for _, name := range order {
			if strings.Contains(name, "go-git") && i >= 3 {
				continue
			}
			u, err := measured(ctx, dir, runs[name])
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			took[name] = append(took[name], u.took)
			all[name], own[name] = max(all[name], u.all), max(own[name], u.own)
		}
	}
	fmt.Fprintf(out, "%d files, %s objects in the history, over loopback HTTP from `git http-backend`, interleaved. Memory is the peak of all\n"+
		"processes together, looked at every 20 ms, what they share counted once, and of the executor by itself. The link has\n"+
		"100 Mbit/s and waits 20 ms before each request. All is on a fresh ext4 in a file, where root may mount it.\n\n", folders*sourceFolder, objectCount(objects))
	fmt.Fprintf(out, "| | samples | p50 | p95 | memory | executor |\n|---|---|---|---|---|---|\n")
	for _, name := range order {
		self := "-"
		if strings.HasPrefix(name, "ours") {
			self = mebibytes(own[name])
		}
		fmt.Fprintf(out, "| %s | %d | %.2f s | %.2f s | %s | %s |\n", name, len(took[name]), took[name].p50().Seconds(), took[name].p95().Seconds(), mebibytes(all[name]), self)
	}
	ratio := func(a, b string) float64 { return float64(took[a].p50()) / float64(took[b].p50()) }
	cold, plain, sparse := ratio("ours, git", order[0]), ratio("ours, go-git", order[3]), ratio("ours, git, repoDir 1%", "ours, git")
	memory := float64(all["ours, go-git"]) / float64(all[order[3]])
	fmt.Fprintf(out, "\n- git engine: %.2f x `git clone --depth 1` (target 1.05 x): %s\n", cold, verdict(cold <= 1.05))
	over := all["ours, git"] - all[order[0]]
	fmt.Fprintf(out, "- memory over that of git clone: %s (target 64 MiB): %s\n", mebibytes(over), verdict(over < 64<<20))
	fmt.Fprintf(out, "- sparse: %.2f x of all (target 0.2 x): %s\n", sparse, verdict(sparse <= 0.2))
	fmt.Fprintf(out, "- go-git engine: %.2f x the time of its plain clone (target 1 x): %s; %.2f x its memory (target 1.5 x): %s\n", plain, verdict(plain <= 1), memory, verdict(memory <= 1.5))
	near, linked := ratio("ours, git, from the mirror", "ours, git"), ratio("ours, git, from the mirror, link", "ours, git, link")
	fmt.Fprintf(out, "- warm mirror: %.2f x of ours without it, %.2f x over the link (target 0.25 x): %s; %.2f x `git clone --depth 1`, %.2f x over the link\n",
		near, linked, verdict(max(near, linked) <= 0.25), ratio("ours, git, from the mirror", order[0]), ratio("ours, git, from the mirror, link", "git clone --depth 1, link"))
	floor := took["git init, and read-tree of a pack that is there"].p50()
	beside := func(name string) float64 { return (took[name].p50() - floor).Seconds() }
	fmt.Fprintf(out, "- beside writing the files, which takes %.2f s with nothing to fetch: %.2f s without the mirror, %.2f s with it; over the link %.2f s and %.2f s\n",
		floor.Seconds(), beside("ours, git"), beside("ours, git, from the mirror"), beside("ours, git, link"), beside("ours, git, from the mirror, link"))
	return nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// objectCount finds the number of objects in what git count-objects says.
func objectCount(said string) string {
	for line := range strings.Lines(said) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "in-pack: "); ok {
			return n
		}
	}
	return "?"
}

// measured runs a program that fills dir, and empties dir again.
func measured(ctx context.Context, dir string, args []string) (taking, error) {
	if err := os.RemoveAll(dir); err != nil {
		return taking{}, err
	}
	syscall.Sync() // what the one before wrote is not for this one to wait for
	u, err := watched(ctx, args)
	if err != nil {
		return taking{}, err
	}
	if _, err := os.Stat(filepath.Join(dir, "project", "Pulumi.yaml")); err != nil {
		return taking{}, err
	}
	return u, os.RemoveAll(dir)
}

// watched runs a program and watches its memory.
func watched(ctx context.Context, args []string) (taking, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return taking{}, err
	}
	done, peak := make(chan struct{}), make(chan taking, 1)
	go func() { peak <- watchMemory(cmd.Process.Pid, done) }()
	err := cmd.Wait()
	took := time.Since(began)
	close(done)
	u := <-peak
	u.took = took
	if err != nil {
		return taking{}, fmt.Errorf("%w: %s", err, said.String())
	}
	return u, nil
}

// watchMemory returns the peak memory of a process, and of it with all that it
// started.
func watchMemory(pid int, done <-chan struct{}) (u taking) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if rss, err := statusField(pid, "VmHWM:"); err == nil {
			u.own = max(u.own, rss)
		}
		u.all = max(u.all, resident(pid))
		select {
		case <-done:
			return u
		case <-tick.C:
		}
	}
}

// resident adds up the memory of a process and its descendants. What they share
// is counted once.
func resident(pid int) (sum int64) {
	rollup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(rollup)) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "Pss:" {
			kib, _ := strconv.ParseInt(words[1], 10, 64)
			sum += kib << 10
		}
	}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		children, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(child); err == nil {
				sum += resident(n)
			}
		}
	}
	return sum
}

// largeRepository makes root/large.git with git's own importer.
func largeRepository(ctx context.Context, root string, folders, commits int) (bare string, err error) {
	bare = filepath.Join(root, "large.git")
	if _, err := gitserver.Git(ctx, "init", "--quiet", "--bare", "--initial-branch=main", bare); err != nil {
		return "", err
	}
	if _, err := gitserver.Git(ctx, "-C", bare, "config", "uploadpack.allowFilter", "true"); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "git", "-C", bare, "fast-import", "--quiet")
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(in, 1<<20)
	writeHistory(w, folders, commits)
	if err := errors.Join(w.Flush(), in.Close(), cmd.Wait()); err != nil {
		return "", fmt.Errorf("make the repository: %w", err)
	}
	_, err = gitserver.Git(ctx, "-C", bare, "repack", "-a", "-d", "--quiet", "--write-bitmap-index")
	return bare, err
}

// writeHistory writes what git fast-import reads.
func writeHistory(w io.Writer, folders, commits int) {
	path := func(folder, file int) string {
		if folder < sourceProject {
			return fmt.Sprintf("project/part%d/file%03d.txt", folder, file)
		}
		return fmt.Sprintf("group%02d/folder%03d/file%03d.txt", folder%40, folder, file)
	}
	modify := func(path, text string) { fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text) }
	begin := func(n int) {
		fmt.Fprintf(w, "commit refs/heads/main\ncommitter Bench <bench@example.com> %d +0000\ndata 6\nchange\n", 1700000000+n)
	}
	random := uint64(88172645463325252)
	text := func(folder, file, version int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "folder %d file %d version %d\n", folder, file, version)
		for range 20 + random%60 {
			random ^= random << 13
			random ^= random >> 7
			random ^= random << 17
			fmt.Fprintf(&b, "value-%d = %016x\n", random%100, random)
		}
		return b.String()
	}
	begin(0)
	modify("project/Pulumi.yaml", "name: project\nruntime: yaml\n")
	for folder := range folders {
		for file := range sourceFolder {
			modify(path(folder, file), text(folder, file, 0))
		}
	}
	for n := 1; n <= commits; n++ {
		begin(n)
		for folder := n % 2; folder < folders; folder += 2 {
			modify(path(folder, (n/2)%sourceFolder), text(folder, n, n))
		}
	}
}

// plainClone as the first argument makes this program a clone by go-git, as its
// documentation shows it, and nothing else: the floor of the built-in engine.
const plainClone = "plain-clone"

func clonePlainly(ctx context.Context, repository, dir string) error {
	_, err := git.PlainCloneContext(ctx, dir, false, &git.CloneOptions{
		URL: repository, Depth: 1, SingleBranch: true, ReferenceName: plumbing.NewBranchReferenceName("main"), Tags: git.NoTags,
	})
	return err
}
