package archive

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// trees are the directories that an archive goes into, by the names of its
// folders.
type trees map[string]*tree

func plant(folders []Folder) (trees, error) {
	all := trees{}
	for _, f := range folders {
		t, err := newTree(f.Path)
		if err != nil {
			all.close()
			return nil, err
		}
		all[f.Name] = t
	}
	return all, nil
}

func (all trees) close() {
	for _, t := range all {
		t.close()
	}
}

// finish makes what has to wait until everything else is there: links, and then
// the modes and times of the folders.
func (all trees) finish() error {
	for _, t := range all {
		if err := t.finish(); err != nil {
			return err
		}
	}
	return nil
}

// tree is one directory that is being filled, by several goroutines. Until it is
// finished there is no symbolic link in it, and nobody else writes there: so a
// path leads where it seems to.
type tree struct {
	path  string
	fd    int
	umask uint32

	mu        sync.Mutex
	made      map[string]bool // folders; true for those that the archive holds
	folders   []later
	links     []later
	hardLinks []later
	open      map[*file]bool // large files of which parts are missing
}

// later is an entry that has to wait.
type later struct {
	name, to string
	mode     uint32
	modified time.Time
}

func newTree(dir string) (*tree, error) {
	fd, err := retried(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	t := &tree{path: dir, fd: fd, made: map[string]bool{}, open: map[*file]bool{}}
	if t.umask, err = probeUmask(fd); err != nil {
		t.close()
		return nil, &fs.PathError{Op: "make a folder in", Path: dir, Err: err}
	}
	return t, nil
}

// probeUmask finds out which bits of a mode are taken from what is made: the
// mask belongs to the process, and asking for it would change it for a moment.
func probeUmask(dir int) (uint32, error) {
	const name = ".longshore-probe"
	if err := unix.Mkdirat(dir, name, 0o777); err != nil {
		return 0, err
	}
	var stat unix.Stat_t
	err := unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	return uint32(stat.Mode)&0o777 ^ 0o777, errors.Join(err, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)) //nolint:unconvert // 16 bits elsewhere
}

func (t *tree) close() {
	for f := range t.open {
		unix.Close(f.fd)
	}
	unix.Close(t.fd)
}

// used reports whether the archive holds this folder.
func (t *tree) used() bool { return t.made[""] }

func (t *tree) error(op, name string, err error) error {
	switch {
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR):
		return wrong("%q is there twice", name)
	case errors.Is(err, unix.ENAMETOOLONG):
		return wrong("a name of %d bytes is too long", len(name))
	}
	return &fs.PathError{Op: op, Path: path.Join(t.path, name), Err: err}
}

// parents makes the folders that lead to an entry.
func (t *tree) parents(name string) error {
	slash := strings.LastIndexByte(name, '/')
	if slash < 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.make(name[:slash])
}

// make makes a folder, and those above it, unless it is there. The caller has
// locked t.mu.
func (t *tree) make(name string) error {
	if _, ok := t.made[name]; ok {
		return nil
	}
	if slash := strings.LastIndexByte(name, '/'); slash >= 0 {
		if err := t.make(name[:slash]); err != nil {
			return err
		}
	}
	if err := unix.Mkdirat(t.fd, name, 0o700); err != nil {
		return t.error("mkdir", name, err)
	}
	t.made[name] = false
	return nil
}

// folder makes a folder. Its mode and time come last: it may forbid to write.
func (t *tree) folder(name string, h *header) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if name != "" {
		if err := t.make(name); err != nil {
			return err
		}
	}
	if t.made[name] {
		return wrong("%q is there twice", h.name)
	}
	t.made[name] = true
	t.folders = append(t.folders, later{name: name, mode: permissions(h), modified: h.modified})
	return nil
}

func permissions(h *header) uint32 { return uint32(h.mode) & 0o777 } //nolint:gosec // nine bits

// link remembers a symbolic link.
func (t *tree) link(name, to string, h *header) error {
	if to == "" || strings.IndexByte(to, 0) >= 0 {
		return wrong("the link %q leads nowhere", h.name)
	}
	if err := t.parents(name); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.links = append(t.links, later{name: name, to: to, modified: h.modified})
	return nil
}

// hardLink remembers another name of a file.
func (t *tree) hardLink(name, to string) error {
	if err := t.parents(name); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hardLinks = append(t.hardLinks, later{name: name, to: to})
	return nil
}

func (t *tree) finish() error {
	for _, l := range t.hardLinks {
		var stat unix.Stat_t
		if unix.Fstatat(t.fd, l.to, &stat, unix.AT_SYMLINK_NOFOLLOW) != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
			return wrong("the link %q leads to no file", l.name)
		}
		if err := unix.Linkat(t.fd, l.to, t.fd, l.name, 0); err != nil {
			return t.error("link", l.name, err)
		}
	}
	for _, l := range t.links {
		if err := unix.Symlinkat(l.to, t.fd, l.name); err != nil {
			return t.error("symlink", l.name, err)
		}
		if err := t.setTime(l.name, l.modified); err != nil {
			return err
		}
	}
	// Those below first: what a folder allows and when it was changed comes last.
	slices.SortFunc(t.folders, func(a, b later) int { return strings.Compare(b.name, a.name) })
	for _, f := range t.folders {
		name, mode := f.name, f.mode
		if name == "" { // it has yet to be moved, and what is kept must stay open to those who keep it
			name, mode = ".", mode|0o700
		}
		if err := unix.Fchmodat(t.fd, name, mode, 0); err != nil {
			return t.error("chmod", name, err)
		}
		if err := t.setTime(name, f.modified); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) setTime(name string, modified time.Time) error {
	spec, err := unix.TimeToTimespec(modified)
	if err != nil {
		return wrong("the time of %q does not exist", name)
	}
	if err := unix.UtimesNanoAt(t.fd, name, []unix.Timespec{spec, spec}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return t.error("set the time of", name, err)
	}
	return nil
}

// file is a file that is being written.
type file struct {
	in       *tree
	name     string
	fd       int
	mode     uint32
	modified time.Time
	kept     bool
}

// create makes a new file.
func (t *tree) create(name string, h *header) (*file, error) {
	if err := t.parents(name); err != nil {
		return nil, err
	}
	f := &file{in: t, name: name, mode: permissions(h), modified: h.modified}
	var err error
	f.fd, err = retried(func() (int, error) {
		return unix.Openat(t.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, f.mode)
	})
	if err != nil {
		return nil, t.error("create", name, err)
	}
	return f, nil
}

// keep has the tree close the file if nobody finishes it.
func (f *file) keep() {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	f.kept, f.in.open[f] = true, true
}

// write writes content at an offset.
func (f *file) write(content []byte, offset int64) error {
	for len(content) > 0 {
		n, err := retried(func() (int, error) { return unix.Pwrite(f.fd, content, offset) })
		if err != nil {
			return f.in.error("write", f.name, err)
		}
		content, offset = content[n:], offset+int64(n)
	}
	return nil
}

// finish sets mode and time, and closes the file.
func (f *file) finish() error {
	defer f.close()
	if f.mode&f.in.umask != 0 {
		if err := unix.Fchmod(f.fd, f.mode); err != nil {
			return f.in.error("chmod", f.name, err)
		}
	}
	if spec, err := unix.TimeToTimespec(f.modified); err == nil {
		switch can, err := setTimes(f.fd, spec); {
		case can && err != nil:
			return f.in.error("set the time of", f.name, err)
		case can:
			return nil
		}
	}
	return f.in.setTime(f.name, f.modified)
}

func (f *file) close() {
	if f.kept {
		f.in.mu.Lock()
		delete(f.in.open, f)
		f.in.mu.Unlock()
	}
	unix.Close(f.fd)
}
