package archive

import (
	"archive/tar"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/longshore-run/longshore/internal/unpack"
)

// walk goes through folders and makes batches of what it finds.
type walk struct {
	ctx           context.Context
	todo, ordered chan<- *batch

	folders        []string
	entries, bytes int64
	batch          *batch
	inodes         map[inode]string // files with several names, by their first
}

type inode struct{ device, number uint64 }

// inBatch is how many entries there are in a batch at most.
const inBatch = 256

func (w *walk) all(folders []Folder) error {
	w.batch = newBatch()
	for _, f := range folders {
		gone, err := missing(f.Path)
		if err != nil {
			return err
		}
		if gone {
			continue
		}
		w.folders = append(w.folders, f.Name)
		w.inodes = map[inode]string{}
		if err := w.folder(f); err != nil {
			return err
		}
	}
	w.batch.last = true
	return w.send()
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func (w *walk) folder(f Folder) error {
	// The path itself may be a link; what is in it is not followed.
	path, err := filepath.EvalSymlinks(f.Path)
	if err != nil {
		return err
	}
	return filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return w.add(f.Name+at[len(path):], at, info)
	})
}

// add puts one entry into the batch.
func (w *walk) add(name, path string, info fs.FileInfo) error {
	if clean, err := unpack.Name(name); err != nil || clean != name {
		return fmt.Errorf("the name %q cannot be kept in an archive", name)
	}
	e := entry{header: header{name: name, mode: int64(info.Mode().Perm()), modified: info.ModTime()}}
	switch mode := info.Mode(); {
	case mode.IsDir():
		e.header.kind = tar.TypeDir
		e.header.name += "/"
	case mode.Type() == fs.ModeSymlink:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		e.header.kind, e.header.link = tar.TypeSymlink, to
	case mode.IsRegular():
		if first := w.first(info, name); first != name {
			e.header.kind, e.header.link = tar.TypeLink, first
			break
		}
		e.header.kind, e.header.size = tar.TypeReg, info.Size()
		if info.Size() > 0 {
			e.path = path
		}
	default:
		return nil
	}
	w.entries++
	w.bytes += e.header.size
	return w.put(e)
}

// first returns the first name of a file that has several.
func (w *walk) first(info fs.FileInfo, name string) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Nlink < 2 {
		return name
	}
	at := inode{uint64(stat.Dev), stat.Ino} //nolint:unconvert // not everywhere
	if first, ok := w.inodes[at]; ok {
		return first
	}
	w.inodes[at] = name
	return name
}

func (w *walk) put(e entry) error {
	if e.header.size > partSize {
		if err := w.send(); err != nil {
			return err
		}
		for part := int64(0); part*partSize < e.header.size; part++ {
			w.batch.entries, w.batch.part = []entry{e}, uint32(part) //nolint:gosec // a part is 2 MiB
			if err := w.send(); err != nil {
				return err
			}
		}
		return nil
	}
	if len(w.batch.entries) >= inBatch || w.batch.size+e.header.size > partSize {
		if err := w.send(); err != nil {
			return err
		}
	}
	w.batch.entries = append(w.batch.entries, e)
	w.batch.size += e.header.size
	return nil
}

// send hands the batch over, unless there is nothing in it.
func (w *walk) send() error {
	if len(w.batch.entries) == 0 && !w.batch.last {
		return nil
	}
	b := w.batch
	w.batch = newBatch()
	for _, to := range []chan<- *batch{w.ordered, w.todo} {
		select {
		case to <- b:
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
	}
	return nil
}
