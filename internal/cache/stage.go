package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/longshore-run/longshore/internal/cache/archive"
)

// stage is where one folder of an entry waits until all of it is there: beside
// the folder's place, or inside when there is a folder already, because that may
// be a file system of its own.
type stage struct {
	Folder
	dir    string // ours; removed in the end
	inside bool   // dir is in the folder
}

// stages are those of one Restore.
type stages []stage

const stagePattern = ".longshore-cache-*"

// add makes a stage for a folder.
func (all *stages) add(f Folder) error {
	s := stage{Folder: f}
	beside := filepath.Dir(f.Path)
	switch info, err := os.Lstat(f.Path); {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(beside, 0o755); err != nil { //nolint:gosec // as a package manager would make it
			return err
		}
	case err != nil:
		return err
	case info.Mode().Type() == fs.ModeSymlink && !f.Merge:
		return fmt.Errorf("%s is a symbolic link, and what it leads to would be replaced", f.Path)
	default:
		beside, s.inside = f.Path, true
	}
	var err error
	if s.dir, err = os.MkdirTemp(beside, stagePattern); err != nil {
		return err
	}
	*all = append(*all, s)
	return os.Mkdir(s.fresh(), 0o700)
}

// fresh is the directory that is unpacked into, stale the one for what makes way.
func (s stage) fresh() string { return filepath.Join(s.dir, "fresh") }
func (s stage) stale() string { return filepath.Join(s.dir, "stale") }

func (all stages) folders() []archive.Folder {
	var folders []archive.Folder
	for _, s := range all {
		folders = append(folders, archive.Folder{Name: s.Name, Path: s.fresh()})
	}
	return folders
}

// place moves the folders that were in the archive to where they belong: with
// renames alone, which are quick and need no room. When one fails, what was
// moved before is moved back.
func (all stages) place(names []string) error {
	var done moves
	for _, s := range all {
		if !slices.Contains(names, s.Name) {
			continue
		}
		if err := s.place(&done); err != nil {
			return errors.Join(fmt.Errorf("put %s into place: %w", s.Name, err), done.undo())
		}
	}
	return nil
}

func (s stage) place(done *moves) error {
	switch {
	case !s.inside:
		return done.move(s.fresh(), s.Path)
	case s.Merge:
		return merge(done, s.fresh(), s.Path)
	}
	if err := os.Mkdir(s.stale(), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.Path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == filepath.Base(s.dir) {
			continue
		}
		if err := done.move(filepath.Join(s.Path, e.Name()), filepath.Join(s.stale(), e.Name())); err != nil {
			return err
		}
	}
	return merge(done, s.fresh(), s.Path)
}

// merge moves what is in one directory into another. What is there stays.
func merge(done *moves, from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		info, err := os.Lstat(target)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = done.move(source, target)
		case err == nil && info.IsDir() && e.IsDir():
			err = merge(done, source, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moves are renames that were done.
type moves [][2]string

func (m *moves) move(from, to string) error {
	if err := rename(from, to); err != nil {
		return err
	}
	*m = append(*m, [2]string{from, to})
	return nil
}

func (m moves) undo() error {
	var errs []error
	for _, move := range slices.Backward(m) {
		errs = append(errs, rename(move[1], move[0]))
	}
	return errors.Join(errs...)
}

// rename moves a file or directory. To move a directory that forbids its owner to
// write, such as those of Go's module cache, or something out of or into one, the
// owner allows himself to for a moment.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	modes := map[string]fs.FileMode{}
	for _, dir := range []string{filepath.Dir(from), filepath.Dir(to), from} {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || info.Mode().Perm()&0o200 != 0 {
			continue
		}
		if os.Chmod(dir, info.Mode().Perm()|0o700) == nil { //nolint:gosec // for a moment
			modes[dir] = info.Mode().Perm()
		}
	}
	err = os.Rename(from, to)
	if mode, ok := modes[from]; ok && err == nil {
		delete(modes, from)
		modes[to] = mode
	}
	for dir, mode := range modes {
		err = errors.Join(err, os.Chmod(dir, mode))
	}
	return err
}

// remove takes the stages away, whatever is in them.
func (all stages) remove() error {
	var errs []error
	for _, s := range all {
		if err := os.RemoveAll(s.dir); err != nil {
			errs = append(errs, removeLocked(s.dir))
		}
	}
	return errors.Join(errs...)
}

// removeLocked removes a directory in which there are some that forbid it.
func removeLocked(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory of ours
		}
		return nil //nolint:nilerr // what can be removed is removed
	})
	return os.RemoveAll(dir)
}
