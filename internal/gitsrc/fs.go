package gitsrc

import (
	"context"
	"os"
	"path/filepath"

	"github.com/go-git/go-billy/v5"
)

// boundFS is a file system that stops working when its context ends. go-git
// takes no context where it indexes a pack and writes a work tree; this is how
// both end soon all the same.
type boundFS struct {
	billy.Filesystem
	ctx context.Context
}

func (f boundFS) file(file billy.File, err error) (billy.File, error) {
	if err != nil {
		return nil, err
	}
	return boundFile{file, f.ctx}, nil
}

func (f boundFS) Create(name string) (billy.File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

func (f boundFS) Open(name string) (billy.File, error) { return f.OpenFile(name, os.O_RDONLY, 0) }

func (f boundFS) OpenFile(name string, flag int, perm os.FileMode) (billy.File, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	return f.file(f.Filesystem.OpenFile(name, flag, perm))
}

func (f boundFS) TempFile(dir, prefix string) (billy.File, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	return f.file(f.Filesystem.TempFile(dir, prefix))
}

func (f boundFS) Symlink(to, name string) error {
	if err := f.ctx.Err(); err != nil {
		return err
	}
	return f.Filesystem.Symlink(to, name)
}

// Lstat does not resolve the directories on the way, as BoundOS does at the
// cost of a third of a checkout: it only looks, and go-git's work tree makes
// sure by itself that no directory on the way is a link.
func (f boundFS) Lstat(name string) (os.FileInfo, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	if !filepath.IsLocal(name) {
		return f.Filesystem.Lstat(name)
	}
	return os.Lstat(filepath.Join(f.Root(), name))
}

func (f boundFS) Chroot(path string) (billy.Filesystem, error) {
	fs, err := f.Filesystem.Chroot(path)
	if err != nil {
		return nil, err
	}
	return boundFS{fs, f.ctx}, nil
}

type boundFile struct {
	billy.File
	ctx context.Context
}

func (f boundFile) Read(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f boundFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f boundFile) Write(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}
