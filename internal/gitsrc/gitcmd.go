package gitsrc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// gitCommand is a git that was found in the image.
type gitCommand struct{ path, version string }

// oldestGit is the first version that knows every command and option used here.
const oldestGit = "2.20"

// findGit looks for a git command that works.
func findGit(ctx context.Context) (*gitCommand, error) {
	path, err := exec.LookPath("git")
	if err != nil {
		return nil, errors.New("there is no git command on the PATH")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.Env = cleanEnv()
	out, err := cmd.Output()
	words := strings.Fields(string(out))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s does not work (%w)", path, err)
	case len(words) < 3 || words[0] != "git":
		return nil, fmt.Errorf("%s is no git", path)
	case older(words[2], oldestGit):
		return nil, fmt.Errorf("%s is git %s, older than %s", path, words[2], oldestGit)
	}
	return &gitCommand{path: path, version: words[2]}, nil
}

// older compares the first two numbers of versions.
func older(version, than string) bool {
	var a, b [2]int
	_, _ = fmt.Sscanf(version, "%d.%d", &a[0], &a[1])
	_, _ = fmt.Sscanf(than, "%d.%d", &b[0], &b[1])
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

// cleanEnv is the environment of every git that is started: nothing of the
// job's, so that no variable, no configuration of the user or the machine and
// no credential helper changes what git does.
func cleanEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1",
	}
}

// settings are those of every git that is started. It connects to nothing by
// itself, whatever a repository says, and runs no hook and no filter of it.
var settings = []string{
	"protocol.allow=never", "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.attributesFile=/dev/null",
	"core.protectHFS=true", "core.protectNTFS=true", "core.symlinks=true", "gc.auto=0", "maintenance.auto=false",
	"submodule.recurse=false", "checkout.workers=0",
}

// gitRepository is the engine that uses the git command.
type gitRepository struct {
	command *gitCommand
	dir     string
	partial bool         // packs may lack objects that others refer to
	update  func(string) // is told how far git has come
}

// gitError is a git command that failed.
type gitError struct {
	command string
	said    string
	full    bool // the disk has no room
	err     error
}

func (e *gitError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("git %s: %v", e.command, e.err)
	}
	return fmt.Sprintf("git %s: %s", e.command, oneLine(e.said))
}

func (e *gitError) Unwrap() error { return e.err }

// cmd prepares a git command. Its process group ends with ctx, as git may have
// started helpers of its own.
func (g gitRepository) cmd(ctx context.Context, args ...string) (*exec.Cmd, *tail) {
	full := []string{}
	for _, s := range settings {
		full = append(full, "-c", s)
	}
	cmd := exec.CommandContext(ctx, g.command.path, append(full, args...)...)
	cmd.Dir = g.dir
	// Named outright, the directory is taken as it is, whoever owns it.
	cmd.Env = append(cleanEnv(), "GIT_DIR="+filepath.Join(g.dir, ".git"), "GIT_WORK_TREE="+g.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	said := &tail{}
	cmd.Stderr = &stderr{update: g.update, said: said}
	return cmd, said
}

// stderr tells what git says of its progress, in lines that end with a carriage
// return, from what it says of errors.
type stderr struct {
	update func(string)
	said   io.Writer
	line   []byte
}

func (s *stderr) Write(b []byte) (int, error) {
	for _, c := range b {
		switch text := string(s.line); {
		case c != '\r' && c != '\n':
			if len(s.line) < 4096 {
				s.line = append(s.line, c)
			}
			continue
		case strings.HasPrefix(text, "Updating files:"), strings.HasPrefix(text, "Resolving deltas:"):
			s.update("git: " + strings.TrimSpace(text))
		case c == '\n' && !strings.HasSuffix(text, ", done."):
			fmt.Fprintln(s.said, text)
		}
		s.line = s.line[:0]
	}
	return len(b), nil
}

// ended explains how a command that was waited for ended.
func (g gitRepository) ended(ctx context.Context, command string, said *tail, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return &gitError{command: command, said: said.String(), full: isFull(g.dir), err: err}
}

// isFull reports whether dir has no room, by trying: git says it in words only,
// and not always.
func isFull(dir string) bool {
	file, err := os.CreateTemp(filepath.Join(dir, ".git"), "room-")
	if err == nil {
		defer os.Remove(file.Name())
		_, err = file.Write(make([]byte, 64<<10))
		err = errors.Join(err, file.Close())
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (g gitRepository) add(ctx context.Context, pack io.Reader) error {
	// A pack may rely on objects that are there already: it is completed then.
	args := []string{"index-pack", "--stdin", "--fix-thin", "-v"}
	if g.partial {
		args = append(args, "--promisor")
	}
	cmd, said := g.cmd(ctx, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, copyErr := io.Copy(in, pack)
	closeErr := in.Close()
	err = g.ended(ctx, "index-pack", said, cmd.Wait())
	switch {
	case errors.Is(copyErr, syscall.EPIPE): // git ended first, and says why
		return err
	case copyErr != nil:
		return copyErr
	case err != nil:
		return err
	}
	return closeErr
}

func (g gitRepository) commits(ctx context.Context, prefix string) ([]plumbing.Hash, error) {
	cmd, said := g.cmd(ctx, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objecttype) %(objectname)")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var found []plumbing.Hash
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if hash, ok := strings.CutPrefix(lines.Text(), "commit "); ok && strings.HasPrefix(hash, prefix) {
			found = append(found, plumbing.NewHash(hash))
		}
	}
	err = errors.Join(lines.Err(), g.ended(ctx, "cat-file", said, cmd.Wait()))
	return found, err
}

func (g gitRepository) commit(ctx context.Context, hash plumbing.Hash) (*object.Commit, error) {
	cmd, said := g.cmd(ctx, "cat-file", "--batch")
	cmd.Stdin = strings.NewReader(hash.String() + "\n")
	out, err := cmd.Output()
	if err := g.ended(ctx, "cat-file", said, err); err != nil {
		return nil, err
	}
	head, body, _ := bytes.Cut(out, []byte("\n"))
	words := strings.Fields(string(head)) // hash, type, size
	if len(words) != 3 || words[1] != "commit" {
		return nil, errNoCommit
	}
	raw := &plumbing.MemoryObject{}
	raw.SetType(plumbing.CommitObject)
	if _, err := raw.Write(bytes.TrimSuffix(body, []byte("\n"))); err != nil {
		return nil, err
	}
	commit := &object.Commit{}
	if err := commit.Decode(raw); err != nil {
		return nil, fmt.Errorf("read commit %s: %w", hash, err)
	}
	return commit, nil
}

func (g gitRepository) write(ctx context.Context, commit plumbing.Hash) error {
	cmd, said := g.cmd(ctx, "read-tree", "--reset", "-u", "-v", commit.String())
	return g.ended(ctx, "read-tree", said, cmd.Run())
}

// entries lists the files of a commit.
func (g gitRepository) entries(ctx context.Context, commit plumbing.Hash) ([]treeEntry, error) {
	cmd, said := g.cmd(ctx, "ls-tree", "-r", "-z", commit.String())
	out, err := cmd.Output()
	if err := g.ended(ctx, "ls-tree", said, err); err != nil {
		return nil, err
	}
	var entries []treeEntry
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		about, name, _ := strings.Cut(line, "\t")
		if words := strings.Fields(about); len(words) == 3 { // mode, type, hash
			entries = append(entries, treeEntry{mode: words[0], hash: plumbing.NewHash(words[2]), path: name})
		}
	}
	return entries, nil
}

// contents hands stored objects to visit, one after the other.
func (g gitRepository) contents(ctx context.Context, list []plumbing.Hash, visit func(plumbing.Hash, []byte)) error {
	var in bytes.Buffer
	for _, hash := range list {
		fmt.Fprintln(&in, hash)
	}
	cmd, said := g.cmd(ctx, "cat-file", "--batch=%(objectname) %(objectsize)")
	cmd.Stdin = &in
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = readBatch(bufio.NewReader(out), visit)
	if err != nil {
		_ = cmd.Cancel()
	}
	return errors.Join(err, g.ended(ctx, "cat-file", said, cmd.Wait()))
}

// readBatch reads what git cat-file --batch prints.
func readBatch(in *bufio.Reader, visit func(plumbing.Hash, []byte)) error {
	for {
		head, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) && head == "" {
			return nil
		}
		var (
			hash string
			size int
		)
		if _, scanErr := fmt.Sscanf(head, "%40s %d", &hash, &size); err != nil || scanErr != nil {
			return fmt.Errorf("git cat-file: %q", strings.TrimSpace(head))
		}
		content := make([]byte, size+1) // with the newline that follows
		if _, err := io.ReadFull(in, content); err != nil {
			return fmt.Errorf("git cat-file: %w", err)
		}
		visit(plumbing.NewHash(hash), content[:size])
	}
}
