// Package unpack puts the files of an archive that nobody vouches for into a
// directory, and cannot be led out of it: by absolute paths, by .., by links, by
// devices, or by more than there is room for. It reads gzipped tar archives and
// zip archives. The main function is Unpack.
package unpack

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Limits say how much an archive may hold. The zero value of each means no
// limit.
type Limits struct {
	Bytes int64 // of all files together
	Files int   // and folders and links
}

// Error is what is wrong with an archive, in words for whoever made it.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

func wrong(format string, args ...any) error { return &Error{Reason: fmt.Sprintf(format, args...)} }

// Unpack puts the files of an archive into dir, which is there and empty. When
// all of them are below one folder, what that folder holds goes into dir, as
// archives of repositories are made that way. What is wrong with the archive is
// an *Error; dir may then hold some of the files.
func Unpack(ctx context.Context, archive *os.File, dir string, limits Limits) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacking{ctx: ctx, root: root, limits: limits}
	head := make([]byte, 4)
	if _, err := archive.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case string(head[:2]) == "\x1f\x8b":
		err = u.tar(archive)
	case string(head) == "PK\x03\x04":
		err = u.zip(archive)
	default:
		err = wrong("it is neither a gzipped tar archive nor a zip archive")
	}
	if err != nil {
		return err
	}
	return u.lift()
}

// unpacking is one Unpack under way.
type unpacking struct {
	ctx    context.Context
	root   *os.Root
	limits Limits
	bytes  int64
	files  int
	links  []string // where they lead
}

func (u *unpacking) tar(archive io.Reader) error {
	plain, err := gzip.NewReader(archive)
	if err != nil {
		return damaged(err)
	}
	r := tar.NewReader(plain)
	for {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return damaged(err)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = u.folder(h.Name)
		case tar.TypeReg:
			err = u.file(h.Name, h.FileInfo().Mode(), r)
		case tar.TypeSymlink:
			err = u.link(h.Name, h.Linkname)
		case tar.TypeXGlobalHeader: // git's note of the commit
		default:
			err = wrong("%q is neither a file, a folder nor a symbolic link", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func (u *unpacking) zip(archive *os.File) error {
	info, err := archive.Stat()
	if err != nil {
		return err
	}
	r, err := zip.NewReader(archive, info.Size())
	if err != nil {
		return damaged(err)
	}
	for _, f := range r.File {
		if err := u.zipped(f); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacking) zipped(f *zip.File) error {
	mode := f.Mode()
	if mode.IsDir() {
		return u.folder(f.Name)
	}
	content, err := f.Open()
	if err != nil {
		return damaged(err)
	}
	defer content.Close()
	switch {
	case mode.IsRegular():
		return u.file(f.Name, mode, content)
	case mode.Type() == fs.ModeSymlink:
		to, err := io.ReadAll(io.LimitReader(content, 4096))
		if err != nil {
			return damaged(err)
		}
		return u.link(f.Name, string(to))
	}
	return wrong("%q is neither a file, a folder nor a symbolic link", f.Name)
}

// damaged tells an archive that cannot be read from a disk that cannot.
func damaged(err error) error {
	var onDisk *fs.PathError
	if errors.As(err, &onDisk) {
		return err
	}
	return wrong("it is damaged: %v", err)
}

// Name returns the name of an archive's entry as a path below the directory that
// it goes into, or an *Error when it would lead elsewhere, on any system.
func Name(raw string) (string, error) {
	name := path.Clean(raw)
	if strings.ContainsAny(raw, "\\\x00") || path.IsAbs(raw) || !filepath.IsLocal(name) {
		return "", wrong("%q leads out of the archive", raw)
	}
	return name, nil
}

// name returns an entry's name as a path below the directory, and makes the
// folders on the way. None of them is a link: then what a path looks like is
// where it leads.
func (u *unpacking) name(raw string) (string, error) {
	if err := u.ctx.Err(); err != nil {
		return "", err
	}
	if u.files++; u.limits.Files > 0 && u.files > u.limits.Files {
		return "", wrong("it holds more than %d files", u.limits.Files)
	}
	name, err := Name(raw)
	if err != nil {
		return "", err
	}
	for i, c := range name {
		if c == '/' {
			if err := u.plainFolder(name[:i]); err != nil {
				return "", err
			}
		}
	}
	return name, nil
}

func (u *unpacking) plainFolder(name string) error {
	info, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return u.root.Mkdir(name, 0o755)
	case err != nil:
		return err
	case !info.IsDir():
		return wrong("%q is a folder and something else, too", name)
	}
	return nil
}

func (u *unpacking) folder(raw string) error {
	name, err := u.name(raw)
	if err != nil || name == "." {
		return err
	}
	return u.plainFolder(name)
}

func (u *unpacking) file(raw string, mode fs.FileMode, content io.Reader) error {
	name, err := u.name(raw)
	if err != nil {
		return err
	}
	file, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|mode.Perm()&0o111)
	if errors.Is(err, fs.ErrExist) {
		return wrong("%q is there twice", raw)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if u.limits.Bytes > 0 {
		content = io.LimitReader(content, u.limits.Bytes-u.bytes+1)
	}
	n, err := io.Copy(file, reading{u.ctx, content})
	u.bytes += n
	switch {
	case u.ctx.Err() != nil:
		return u.ctx.Err()
	case err != nil:
		return damaged(err)
	case u.limits.Bytes > 0 && u.bytes > u.limits.Bytes:
		return wrong("unpacked it is larger than %d MiB", u.limits.Bytes>>20)
	}
	return file.Close()
}

// link makes a symbolic link that stays within the directory, whatever the
// links are that it leads through.
func (u *unpacking) link(raw, to string) error {
	name, err := u.name(raw)
	if err != nil {
		return err
	}
	up := strings.TrimLeft(path.Clean(to), "./")
	switch {
	case to == "", strings.ContainsAny(to, "\\\x00"), path.IsAbs(to), !filepath.IsLocal(path.Join(path.Dir(name), to)):
		return wrong("the link %q leads out of the archive", raw)
	case strings.TrimRight(strings.TrimLeft(to, "./"), "/") != up: // .. after a name, which may be a link
		return wrong("the link %q leads round about", raw)
	}
	err = u.root.Symlink(to, name)
	if errors.Is(err, fs.ErrExist) {
		return wrong("%q is there twice", raw)
	}
	u.links = append(u.links, path.Join(path.Dir(name), to))
	return err
}

// lift moves what the only folder holds into its parent.
func (u *unpacking) lift() error {
	const aside = ".longshore-unpack"
	entries, err := fs.ReadDir(u.root.FS(), ".")
	if err != nil || len(entries) != 1 || !entries[0].IsDir() {
		return err
	}
	top := entries[0].Name()
	for _, to := range u.links {
		if to != top && !strings.HasPrefix(to, top+"/") {
			return wrong("a link leads out of the folder %q, which is all that there is", top)
		}
	}
	if err := u.root.Rename(top, aside); err != nil {
		return err
	}
	inside, err := fs.ReadDir(u.root.FS(), aside)
	if err != nil {
		return err
	}
	for _, e := range inside {
		if err := u.root.Rename(path.Join(aside, e.Name()), e.Name()); err != nil {
			return err
		}
	}
	return u.root.Remove(aside)
}

// reading ends with its context.
type reading struct {
	ctx context.Context
	r   io.Reader
}

func (r reading) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
