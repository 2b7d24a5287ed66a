package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockName is the file in the data directory that its owner keeps locked.
const lockName = "longshore.lock"

// lockDir makes this process the only one to use dir. The lock is the kernel's,
// so it never outlives the process; the text in the file only says whose it is.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, notWritable(dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // #nosec G115 -- a descriptor is a small number
	if errors.Is(err, syscall.EWOULDBLOCK) {
		defer f.Close()
		return nil, fmt.Errorf("data directory %s is in use by %s: stop it, or choose another directory", dir, lockOwner(path))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d %s\n", os.Getpid(), host), 0)
	}
	if err != nil {
		f.Close()
		return nil, notWritable(dir, err)
	}
	return f, nil
}

// lockOwner says who holds the lock, as far as the file tells.
func lockOwner(path string) string {
	text, err := os.ReadFile(path)
	pid, host, ok := strings.Cut(strings.TrimSpace(string(text)), " ")
	if err != nil || !ok {
		return "another longshore-server"
	}
	return fmt.Sprintf("another longshore-server (process %s on %s)", pid, host)
}

// notWritable explains an error of writing into the data directory.
func notWritable(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("data directory %s is not writable for this user: change its owner, or choose another directory: %w", dir, err)
	}
	return fmt.Errorf("data directory %s cannot be used: %w", dir, err)
}
