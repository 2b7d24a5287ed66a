package blob

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"gocloud.dev/blob/fileblob"
)

// Path is where the Handler of a folder is mounted.
const Path = "/api/blobs"

// MinKeyBytes is the least that a key has which signs URLs.
const MinKeyBytes = 32

// uploads is the directory of uploads under way. It is inside of the folder, so
// that an upload becomes an object by a rename.
const uploads = ".uploads"

// folder serves the objects of a folder to those who have a URL for them.
type folder struct {
	root     *os.Root // so that not even a link that somebody put there leads out
	signer   *fileblob.URLSignerHMAC
	maxBytes int64
	observe  func(method, name string, bytes int64, took time.Duration)
}

func openFolder(u *url.URL, o Options) (_ *Bucket, err error) {
	dir := filepath.FromSlash(u.Path)
	if u.Host != "" || !filepath.IsAbs(dir) || u.RawQuery != "" {
		return nil, errors.New("bucket: want file:// and an absolute path without options, such as file:///var/cache/longshore")
	}
	if len(o.Key) < MinKeyBytes {
		return nil, fmt.Errorf("bucket: the key that signs URLs has %d bytes, want %d or more", len(o.Key), MinKeyBytes)
	}
	if err := os.MkdirAll(filepath.Join(dir, uploads), 0o700); err != nil {
		return nil, fmt.Errorf("bucket: %w: make the folder, or let this user write to it", err)
	}
	f := &folder{signer: fileblob.NewURLSignerHMAC(&url.URL{Path: Path}, o.Key), maxBytes: o.MaxBytes, observe: o.Observe}
	if f.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	bucket, err := fileblob.OpenBucket(dir, &fileblob.Options{
		URLSigner: f.signer, NoTempDir: true, Metadata: fileblob.MetadataDontWrite, DirFileMode: 0o700,
	})
	if err != nil {
		f.root.Close()
		return nil, fmt.Errorf("bucket: %w", err)
	}
	return &Bucket{bucket: bucket, folder: f}, nil
}

// ServeHTTP answers to a URL that Sign made.
func (f *folder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The signature covers name, method and time, and is compared in constant
	// time; that the method is the one of the request is for us to see.
	name, err := f.signer.KeyFromURL(r.Context(), r.URL)
	if err != nil || r.URL.Query().Get("method") != r.Method || checkName(name) != nil {
		refuse(w, http.StatusForbidden, "this URL does not open anything: it was changed, or its time is over")
		return
	}
	start := time.Now()
	var n int64
	if r.Method == http.MethodPut {
		n, err = f.put(w, r, name)
	} else {
		n, err = f.get(w, r, name)
	}
	if err == nil && f.observe != nil {
		f.observe(r.Method, name, n, time.Since(start))
	}
}

// get answers with an object, or with the part of it that r asks for.
func (f *folder) get(w http.ResponseWriter, r *http.Request, name string) (int64, error) {
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
func (f *folder) put(w http.ResponseWriter, r *http.Request, name string) (int64, error) {
	if f.maxBytes > 0 && r.ContentLength > f.maxBytes {
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

func (f *folder) tooLarge(w http.ResponseWriter) {
	w.Header().Set("Connection", "close") // the rest of the body is not worth reading
	refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the object is larger than the limit of %d bytes", f.maxBytes))
}

// receive writes the body beside the objects and renames it to its place.
// It is not synced: who reads an object checks its sums, and after a crash of
// the machine a bad object is one that has to be made again.
func (f *folder) receive(w http.ResponseWriter, r *http.Request, name string) (n int64, err error) {
	temporary, file, err := f.create()
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.root.Remove(temporary))
		}
	}()
	body := r.Body
	if f.maxBytes > 0 {
		body = http.MaxBytesReader(w, body, f.maxBytes)
	}
	n, err = io.CopyBuffer(onlyWriter{file}, &pacedReader{body, http.NewResponseController(w)}, make([]byte, 256<<10))
	if err := errors.Join(err, file.Close()); err != nil {
		return n, err
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return n, err
	}
	return n, f.root.Rename(temporary, name)
}

// create makes a new file for an upload.
func (f *folder) create() (name string, _ *os.File, err error) {
	for range 100 {
		name = path.Join(uploads, fmt.Sprintf("%x", time.Now().UnixNano()))
		file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return name, file, err
		}
	}
	return "", nil, fs.ErrExist
}

func (f *folder) tidy(before time.Time) error {
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
