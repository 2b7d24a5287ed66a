package archive

import (
	"errors"
	"fmt"
	"hash"
	"io/fs"

	"golang.org/x/sys/unix"
)

// readInto fills p with the content of a file from an offset on.
func readInto(p []byte, path string, offset int64) error {
	fd, err := retried(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for len(p) > 0 {
		n, err := retried(func() (int, error) { return unix.Pread(fd, p, offset) })
		switch {
		case err != nil:
			return &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return fmt.Errorf("%s became shorter while it was read", path)
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// retried makes a system call again for as long as a signal interrupts it.
func retried(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// sumWriter is a hash, of which Write does not fail.
type sumWriter struct{ hash.Hash }

func (s sumWriter) Write(p []byte) { _, _ = s.Hash.Write(p) }
