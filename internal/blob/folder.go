package blob

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Path is where the Handler of a folder is mounted.
const Path = "/api/blobs"

// MinKeyBytes is the least that a key has which signs URLs.
const MinKeyBytes = 32

// uploads is the directory of uploads under way. It is inside of the folder, so
// that an upload becomes an object by a rename.
const uploads = ".uploads"

// Folder is a bucket that is a folder, and serves its objects to those who have
// a URL for them.
type Folder struct {
	root *os.Root // so that not even a link that somebody put there leads out
	o    FolderOptions
}

var _ Bucket = (*Folder)(nil)

// FolderOptions are the settings of a Folder. Key is required.
type FolderOptions struct {
	// Key signs the URLs. Programs that share a folder and a Key serve each
	// other's URLs.
	Key []byte
	// MaxBytes is the most that an object uploaded by a URL may have; 0 means no
	// limit.
	MaxBytes int64
	// Observe is told of every transfer by Handler that succeeded. May be nil.
	Observe func(method, name string, bytes int64, took time.Duration)
}

// OpenFolder opens the folder at a URL such as file:///var/cache/longshore, and
// makes it when it is missing. The caller closes it.
func OpenFolder(text string, o FolderOptions) (*Folder, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "file" || u.Host != "" || !path.IsAbs(u.Path) || u.RawQuery != "" {
		return nil, errors.New("want file:// and an absolute path without options, such as file:///var/cache/longshore")
	}
	if len(o.Key) < MinKeyBytes {
		return nil, fmt.Errorf("the key that signs URLs has %d bytes, want %d or more", len(o.Key), MinKeyBytes)
	}
	dir := filepath.FromSlash(u.Path)
	if err := os.MkdirAll(filepath.Join(dir, uploads), 0o700); err != nil {
		return nil, fmt.Errorf("%w: make the folder, or let this user write to it", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Folder{root, o}, nil
}

// Close lets go of the folder.
func (f *Folder) Close() error { return f.root.Close() }

// Handler serves the URLs of the folder.
func (f *Folder) Handler() http.Handler { return f }

// Stat returns what there is to say about an object.
func (f *Folder) Stat(_ context.Context, name string) (Object, error) {
	if err := CheckName(name); err != nil {
		return Object{}, err
	}
	info, err := f.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		return Object{}, fmt.Errorf("look at object %s: %w", name, err)
	}
	return Object{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil
}

// List goes through the objects whose names begin with prefix. What is removed
// meanwhile may be missing in it.
func (f *Folder) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		start, _ := path.Split(prefix)
		start = path.Clean(start)
		err := fs.WalkDir(f.root.FS(), start, func(name string, entry fs.DirEntry, err error) error {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, fs.ErrNotExist):
				return nil // nothing was ever there, or it has just gone
			case err != nil:
				return err
			case entry.IsDir() && (name == uploads || name != "." && !strings.HasPrefix(name+"/", prefix) && !strings.HasPrefix(prefix, name+"/")):
				return fs.SkipDir
			case !entry.Type().IsRegular() || !strings.HasPrefix(name, prefix):
				return nil
			}
			info, err := entry.Info()
			if err != nil {
				return nil //nolint:nilerr // it has just gone
			}
			if !yield(Object{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(Object{}, fmt.Errorf("list objects: %w", err))
		}
	}
}

// Write makes or replaces an object.
func (f *Folder) Write(_ context.Context, name string, content []byte) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := f.place(name, bytes.NewReader(content)); err != nil {
		return fmt.Errorf("write object %s: %w", name, err)
	}
	return nil
}

// Delete removes an object. Directories stay: they are few, and somebody may
// be about to put an object there.
func (f *Folder) Delete(_ context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	return nil
}

// ServeHTTP answers to a URL that Sign made.
func (f *Folder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := f.opens(r.Method, r.URL.Query())
	if !ok {
		refuse(w, http.StatusForbidden, "this URL does not open anything: it was changed, or its time is over")
		return
	}
	start := time.Now()
	var n int64
	var err error
	if r.Method == http.MethodPut {
		n, err = f.put(w, r, name)
	} else {
		n, err = f.get(w, r, name)
	}
	if err == nil && f.o.Observe != nil {
		f.o.Observe(r.Method, name, n, time.Since(start))
	}
}

// get answers with an object, or with the part of it that r asks for.
func (f *Folder) get(w http.ResponseWriter, r *http.Request, name string) (int64, error) {
	file, err := f.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		refuse(w, http.StatusNotFound, "there is no such object")
		return 0, err
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, "the object cannot be read")
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		refuse(w, http.StatusNotFound, "there is no such object")
		return 0, err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	paced := &pacedWriter{ResponseWriter: w, deadline: http.NewResponseController(w)}
	http.ServeContent(paced, r, "", info.ModTime(), file)
	return paced.written, paced.err
}

// put makes an object of the body, all of it or none.
func (f *Folder) put(w http.ResponseWriter, r *http.Request, name string) (int64, error) {
	if f.o.MaxBytes > 0 && r.ContentLength > f.o.MaxBytes {
		f.tooLarge(w)
		return 0, errTooLarge
	}
	n, err := f.receive(w, r, name)
	var large *http.MaxBytesError
	switch {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case errors.As(err, &large):
		f.tooLarge(w)
	case errors.Is(err, syscall.ENOSPC):
		refuse(w, http.StatusInsufficientStorage, "there is no room for the object")
	case errors.Is(err, errBody):
		refuse(w, http.StatusBadRequest, "the body could not be read to its end")
	default:
		refuse(w, http.StatusInternalServerError, "the object cannot be written")
	}
	return n, err
}

var (
	errTooLarge = errors.New("object too large")
	errBody     = errors.New("read body")
)

func (f *Folder) tooLarge(w http.ResponseWriter) {
	w.Header().Set("Connection", "close") // the rest of the body is not worth reading
	refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the object is larger than the limit of %d bytes", f.o.MaxBytes))
}

// receive makes an object of the body of a request.
func (f *Folder) receive(w http.ResponseWriter, r *http.Request, name string) (int64, error) {
	body := r.Body
	if f.o.MaxBytes > 0 {
		body = http.MaxBytesReader(w, body, f.o.MaxBytes)
	}
	return f.place(name, &pacedReader{body, http.NewResponseController(w)})
}

// place writes an object beside the others and renames it to its place. It is
// not synced: who reads an object checks its sums, and after a crash of the
// machine a bad object is one that has to be made again.
func (f *Folder) place(name string, content io.Reader) (n int64, err error) {
	temporary, file, err := f.create()
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.root.Remove(temporary))
		}
	}()
	n, err = io.CopyBuffer(onlyWriter{file}, content, make([]byte, 256<<10))
	if err := errors.Join(err, file.Close()); err != nil {
		return n, err
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return n, err
	}
	return n, f.root.Rename(temporary, name)
}

// create makes a new file for an upload.
func (f *Folder) create() (name string, _ *os.File, err error) {
	for range 100 {
		name = path.Join(uploads, fmt.Sprintf("%x", time.Now().UnixNano()))
		file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return name, file, err
		}
	}
	return "", nil, fs.ErrExist
}

// Tidy removes uploads that were begun before a time and never ended.
func (f *Folder) Tidy(before time.Time) error {
	entries, err := fs.ReadDir(f.root.FS(), uploads)
	if err != nil {
		return fmt.Errorf("look for abandoned uploads: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.ModTime().Before(before) { // it has just ended, or goes on
			continue
		}
		if err := f.root.Remove(path.Join(uploads, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove abandoned upload: %w", err))
		}
	}
	return errors.Join(errs...)
}

// refuse answers with the shape of errors that the service has.
func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("ETag")
	w.WriteHeader(code)
	// A caller that went away is no error of ours.
	_ = json.NewEncoder(w).Encode(struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{code, message})
}
