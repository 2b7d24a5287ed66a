// Package dirlock makes one process the only one to use a directory. The lock
// is the kernel's, so it never outlives its process; the text in the file only
// says whose it is. The one type is Lock.
package dirlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// fileName is the file in a directory that its owner keeps locked.
const fileName = "longshore.lock"

// Lock is a held lock.
type Lock struct{ file *os.File }

// Take locks dir for this process. what names the directory and program the
// kind of process that uses it, for messages: "data directory", and
// "longshore-server". The directory must exist.
func Take(dir, what, program string) (*Lock, error) {
	path := filepath.Join(dir, fileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, NotWritable(dir, what, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // #nosec G115 -- a descriptor is a small number
	if errors.Is(err, syscall.EWOULDBLOCK) {
		defer f.Close()
		return nil, fmt.Errorf("%s %s is in use by another %s%s: stop it, or choose another directory", what, dir, program, owner(path))
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
	// A full disk keeps nobody from locking: the text is for people.
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		f.Close()
		return nil, NotWritable(dir, what, err)
	}
	return &Lock{f}, nil
}

// Close gives the directory free.
func (l *Lock) Close() error { return l.file.Close() }

// owner says who holds the lock, as far as the file tells.
func owner(path string) string {
	text, err := os.ReadFile(path)
	pid, host, ok := strings.Cut(strings.TrimSpace(string(text)), " ")
	if err != nil || !ok {
		return ""
	}
	return fmt.Sprintf(" (process %s on %s)", pid, host)
}

// NotWritable explains an error of writing into dir.
func NotWritable(dir, what string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%s %s is not writable for this user: change its owner, or choose another directory: %w", what, dir, err)
	}
	return fmt.Errorf("%s %s cannot be used: %w", what, dir, err)
}
