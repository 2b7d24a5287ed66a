package undelivered

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/longshore-run/longshore/internal/logstream"
)

// maxSpool bounds what is copied of one spool.
const maxSpool = 1 << 30

// copySpool copies the files of a spool and returns how many there were. A spool
// that is not there has none.
func copySpool(from, to string) (files int, err error) {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	left := int64(maxSpool)
	for _, e := range entries {
		if !logstream.IsSpoolFile(e.Name()) || left <= 0 {
			continue
		}
		if err := os.MkdirAll(to, 0o700); err != nil {
			return files, err
		}
		n, err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), min(left, logstream.MaxFileBytes))
		if err != nil {
			return files, err
		}
		left -= n
		if n > 0 && strings.HasSuffix(e.Name(), ".spool") {
			files++
		}
	}
	return files, nil
}

// copyFile copies a regular file, and nothing of anything else.
func copyFile(from, to string, limit int64) (int64, error) {
	in, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
			return 0, nil // a link, a socket
		}
		return 0, err
	}
	defer in.Close()
	if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0, err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, limit))
	return n, errors.Join(err, out.Sync(), out.Close())
}

// occupied reports whether a directory could not be moved to a place because
// there is one that is not empty.
func occupied(err error) bool {
	return errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST)
}
