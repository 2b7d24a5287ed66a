package mirror

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/longshore-run/longshore/internal/dirlock"
)

const (
	entriesName = "entries" // in a store's directory, with the lock beside it
	// share is the part of a store that one job may fill, so that none can throw
	// out everything that the others left.
	share = 4
	// mostBytes is how large an entry may be at most: with all else that a job
	// leaves, it must be less than what is copied out of a container.
	mostBytes = 1<<30 - 1<<24
	// mostEntries is how many entries one job may leave: a repository and its
	// submodules.
	mostEntries = 64
)

// Store holds the entries, on the agent's host. It may be used by several
// goroutines; a lock on its directory keeps other processes out.
type Store struct {
	dir  string
	max  int64
	lock *dirlock.Lock
	mu   sync.Mutex
}

// Open makes dir when it is missing, locks it, and removes what is left of
// unfinished work. max bounds the size of all entries in bytes.
func Open(dir string, max int64) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	entries := filepath.Join(dir, entriesName)
	if err := os.MkdirAll(entries, 0o755); err != nil { //nolint:gosec // jobs run as other users, and the entries are sealed
		return nil, dirlock.NotWritable(dir, "directory of the mirror", err)
	}
	// MkdirAll heeds the umask, and every job must find its way.
	for _, d := range []string{dir, entries} {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // see above
			return nil, dirlock.NotWritable(dir, "directory of the mirror", err)
		}
	}
	lock, err := dirlock.Take(dir, "directory of the mirror", "longshore-agent")
	if err != nil {
		return nil, err
	}
	s := &Store{dir: entries, max: max, lock: lock}
	if err := s.tidy(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("directory of the mirror: %w", err)
	}
	return s, nil
}

// Close lets go of the directory.
func (s *Store) Close() error { return s.lock.Close() }

// Dir is the folder of the entries, for jobs to read.
func (s *Store) Dir() string { return s.dir }

// Limit is how large an entry may be.
func (s *Store) Limit() int64 { return min(s.max/share, mostBytes) }

// tidy removes what is no entry, and what is too much.
func (s *Store) tidy() error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !validName(f.Name()) || !f.Type().IsRegular() {
			if err := os.RemoveAll(filepath.Join(s.dir, f.Name())); err != nil {
				return err
			}
		}
	}
	_, err = s.trim()
	return err
}

// Taken says what came of a job's folder.
type Taken struct{ Added, Used, Dropped, Evicted int }

// Take takes over what a job left in the folder from. Everything in it may have
// been written by anybody in the job: entries are taken when their checksum is
// right and there is none of the name yet; an entry that the job calls broken goes
// only when its checksum says so, too.
func (s *Store) Take(from string) (t Taken, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, name := range list(from, brokenName) {
		gone, err := s.dropBroken(name)
		errs = append(errs, err)
		t.Dropped += gone
	}
	now := time.Now()
	for _, name := range list(from, usedName) {
		if os.Chtimes(filepath.Join(s.dir, name), now, now) == nil {
			t.Used++
		}
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return t, errors.Join(append(errs, err)...)
	}
	left := s.max / share
	for _, f := range files {
		if !validName(f.Name()) || !f.Type().IsRegular() || t.Added == mostEntries {
			continue
		}
		n, err := s.add(filepath.Join(from, f.Name()), f.Name(), left)
		if n > 0 {
			left -= n
			t.Added++
		}
		errs = append(errs, err)
	}
	t.Evicted, err = s.trim()
	return t, errors.Join(append(errs, err)...)
}

// list reads a list of names that a job left.
func list(dir, name string) (names []string) {
	f, err := openPlain(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxListBytes))
	for lines.Scan() && len(names) < 8*mostEntries {
		if line := strings.TrimSpace(lines.Text()); validName(line) && !slices.Contains(names, line) {
			names = append(names, line)
		}
	}
	return names
}

// openPlain opens a regular file that is no link.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrInvalid
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Store) dropBroken(name string) (int, error) {
	path := filepath.Join(s.dir, name)
	f, err := openPlain(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err == nil {
		err = check(f)
		f.Close()
	}
	if err == nil {
		return 0, nil
	}
	return 1, os.Remove(path)
}

// add copies a file into the store and returns its size, 0 when it was not taken.
// It is a copy, because what a job has open it could change later.
func (s *Store) add(path, name string, left int64) (int64, error) {
	to := filepath.Join(s.dir, name)
	if _, err := os.Lstat(to); err == nil {
		return 0, nil
	}
	in, err := openPlain(path)
	if err != nil {
		return 0, nil //nolint:nilerr // not what a job's executor writes
	}
	defer in.Close()
	part, err := os.CreateTemp(s.dir, partPrefix)
	if err != nil {
		return 0, err
	}
	defer os.Remove(part.Name()) // it has another name once it was taken
	defer part.Close()
	n, err := io.Copy(part, io.LimitReader(in, left+1))
	if err != nil {
		return 0, err
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil || n > left || check(part) != nil {
		return 0, err
	}
	if err := part.Chmod(0o644); err != nil {
		return 0, err
	}
	return n, os.Rename(part.Name(), to)
}

// trim removes entries until they are within the limit, those first that were
// not used for longest.
func (s *Store) trim() (evicted int, err error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, err
	}
	type entry struct {
		path string
		size int64
		used time.Time
	}
	var (
		entries []entry
		sum     int64
	)
	for _, f := range files {
		info, err := f.Info()
		if err != nil || !validName(f.Name()) {
			continue
		}
		entries = append(entries, entry{filepath.Join(s.dir, f.Name()), info.Size(), info.ModTime()})
		sum += info.Size()
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(a.used.Compare(b.used), strings.Compare(a.path, b.path))
	})
	for _, e := range entries {
		if sum <= s.max {
			break
		}
		if err := os.Remove(e.path); err != nil {
			return evicted, err
		}
		sum -= e.size
		evicted++
	}
	return evicted, nil
}
