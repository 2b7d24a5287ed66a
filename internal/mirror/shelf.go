package mirror

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Names in the folder in which a job hands things to its agent.
const (
	usedName     = "used"   // lists the entries that served the job
	brokenName   = "broken" // lists those that did not
	partPrefix   = ".part-"
	maxListBytes = 64 << 10
)

// errTooLarge ends an entry that is larger than a job may leave.
var errTooLarge = errors.New("the pack is larger than the mirror takes")

// Shelf is the mirror as a job sees it. It may be used by several goroutines.
type Shelf struct {
	Dir   string // the entries, to read only
	Out   string // where new ones go; made when needed
	Limit int64  // how large a new one may be; 0 is no limit

	mu sync.Mutex
}

// Open opens an entry. The error wraps fs.ErrNotExist when there is none.
func (s *Shelf) Open(name string) (io.ReadCloser, error) {
	if !validName(name) {
		return nil, fs.ErrNotExist
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fs.ErrNotExist
	}
	return f, nil
}

// Has reports whether there is an entry.
func (s *Shelf) Has(name string) bool {
	info, err := os.Lstat(filepath.Join(s.Dir, name))
	return validName(name) && err == nil && info.Mode().IsRegular()
}

// Used notes that an entry was of use, so that it is kept longer than others.
func (s *Shelf) Used(name string) { s.note(usedName, name) }

// Broken notes that an entry could not be used.
func (s *Shelf) Broken(name string) { s.note(brokenName, name) }

// note adds a line to a list. What cannot be noted is not worth a word.
func (s *Shelf) note(list, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if os.MkdirAll(s.Out, 0o700) != nil {
		return
	}
	f, err := os.OpenFile(filepath.Join(s.Out, list), os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, name)
}

// Entry is a new entry on its way. It takes whatever is written to it without an
// error, and is given up when it cannot be kept: a checkout does not fail for its
// mirror.
type Entry struct {
	name  string
	file  *os.File
	buf   *bufio.Writer
	seal  *Writer
	left  int64
	limit bool
	err   error
}

// Create begins an entry. End it with Keep or Drop.
func (s *Shelf) Create(name string, key Key, h Header) *Entry {
	e := &Entry{name: filepath.Join(s.Out, name), left: s.Limit, limit: s.Limit > 0}
	if !validName(name) {
		e.err = fs.ErrInvalid
		return e
	}
	if e.err = os.MkdirAll(s.Out, 0o700); e.err != nil {
		return e
	}
	if e.file, e.err = os.CreateTemp(s.Out, partPrefix); e.err != nil {
		return e
	}
	e.buf = bufio.NewWriterSize(bounded{e}, chunkSize)
	e.seal, e.err = NewWriter(e.buf, key, h)
	return e
}

// bounded is the file of an entry up to the limit.
type bounded struct{ e *Entry }

func (b bounded) Write(p []byte) (int, error) {
	if b.e.left -= int64(len(p)); b.e.limit && b.e.left < 0 {
		return 0, errTooLarge
	}
	return b.e.file.Write(p)
}

// Write takes a part of the pack.
func (e *Entry) Write(p []byte) (int, error) {
	if e.err == nil {
		_, e.err = e.seal.Write(p)
	}
	return len(p), nil
}

// Keep makes the entry one that the agent finds, and says why not when it could
// not be kept.
func (e *Entry) Keep() error {
	if e.err == nil {
		e.err = errors.Join(e.seal.Close(), e.buf.Flush(), e.file.Close())
	}
	if e.err == nil {
		e.err = os.Rename(e.file.Name(), e.name)
	}
	err := e.err
	e.Drop()
	return err
}

// Drop gives the entry up. After Keep it does nothing to what was kept.
func (e *Entry) Drop() {
	if e.file == nil {
		return
	}
	_ = e.file.Close()
	_ = os.Remove(e.file.Name())
	e.file = nil
	if e.err == nil {
		e.err = fs.ErrClosed
	}
}
