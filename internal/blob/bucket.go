// Package blob keeps objects in a bucket and lends them out by presigned URLs: a
// URL opens one object, by one method, for a short time, to whoever has it, and
// takes no other credential. A bucket is a folder, or one of a cloud; package
// cloud has the openers of those, so that a program which needs none of them
// carries none of their libraries.
//
// The cloud serves its own URLs. Those of a folder are served by Bucket.Handler,
// under Path, and are relative: whoever serves it knows the address.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	gocloud "gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// ErrNotFound means that the bucket has no such object.
var ErrNotFound = errors.New("no such object")

// Opener opens the buckets of one scheme.
type Opener func(ctx context.Context, u *url.URL) (*gocloud.Bucket, error)

// Options are what a bucket may need beside its URL.
type Options struct {
	// Openers are those of the schemes that may be opened beside "file".
	Openers map[string]Opener
	// Key signs the URLs of a folder. Programs that share a folder and a Key
	// serve each other's URLs. Required for a folder.
	Key []byte
	// MaxBytes is the most that an object uploaded to a folder may have; 0 means
	// no limit. A presigned URL of a cloud cannot carry one.
	MaxBytes int64
	// Observe is told of every transfer by Handler that succeeded. May be nil.
	Observe func(method, name string, bytes int64, took time.Duration)
}

// Bucket is where objects are kept. Its methods may be called concurrently, and
// several programs may use the same bucket.
type Bucket struct {
	bucket *gocloud.Bucket
	folder *folder // nil for a bucket of a cloud
}

// Object is what a bucket says about an object.
type Object struct {
	Name     string
	Size     int64
	Modified time.Time // when it was written, by the clock of the bucket
}

// Open opens the bucket at a URL: file:///path/of/a/folder, which is made when
// it is missing, or one of a scheme that o has an opener for. The caller closes
// it.
func Open(ctx context.Context, text string, o Options) (*Bucket, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("bucket: not a URL: want one such as file:///var/cache/longshore or %s", examples(o.Openers))
	}
	if u.Scheme == "file" {
		return openFolder(u, o)
	}
	open := o.Openers[u.Scheme]
	if open == nil {
		return nil, fmt.Errorf("bucket: %q is no scheme that this program opens: want %s", u.Scheme, examples(o.Openers))
	}
	bucket, err := open(ctx, u)
	if err != nil {
		return nil, err
	}
	return &Bucket{bucket: bucket}, nil
}

func examples(openers map[string]Opener) string {
	names := []string{"file:///folder"}
	for _, scheme := range slices.Sorted(maps.Keys(openers)) {
		names = append(names, scheme+"://bucket")
	}
	return strings.Join(names, ", ")
}

// Close lets go of the bucket.
func (b *Bucket) Close() error {
	if b.folder != nil {
		return errors.Join(b.bucket.Close(), b.folder.root.Close())
	}
	return b.bucket.Close()
}

// Handler serves the URLs of a folder, to be mounted at Path. It is nil for a
// bucket of a cloud.
func (b *Bucket) Handler() http.Handler {
	if b.folder == nil {
		return nil // and not a handler that holds nil
	}
	return b.folder
}

// A name is a path of parts that no bucket, no file system and no URL needs to
// escape, but for the percent signs in it.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9%~_+@=.-]+(/[A-Za-z0-9%~_+@=.-]+)*$`)

// sidecar ends the names of files in which fileblob would keep attributes.
const sidecar = ".attrs"

func checkName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if part == "." || part == ".." {
			return fmt.Errorf("object name %q leaves the bucket", name)
		}
	}
	if !namePattern.MatchString(name) || strings.HasSuffix(name, sidecar) {
		return fmt.Errorf("%q is no object name", name)
	}
	return nil
}

// Sign returns a URL that opens the object by a method, GET or PUT, for as long
// as life. For a folder it is relative to the address at which Handler is served.
func (b *Bucket) Sign(ctx context.Context, method, name string, life time.Duration) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	if method != http.MethodGet && method != http.MethodPut {
		return "", fmt.Errorf("sign URL: method %q, want GET or PUT", method)
	}
	signed, err := b.bucket.SignedURL(ctx, name, &gocloud.SignedURLOptions{Method: method, Expiry: life})
	if err != nil {
		return "", fmt.Errorf("sign URL: %w", err)
	}
	return signed, nil
}

// Stat returns what the bucket knows of an object, or ErrNotFound.
func (b *Bucket) Stat(ctx context.Context, name string) (Object, error) {
	if err := checkName(name); err != nil {
		return Object{}, err
	}
	a, err := b.bucket.Attributes(ctx, name)
	if err != nil {
		return Object{}, fmt.Errorf("look at object %s: %w", name, known(err))
	}
	return Object{Name: name, Size: a.Size, Modified: a.ModTime}, nil
}

// List goes through the objects whose names begin with prefix. It ends after an
// error.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for objects := b.bucket.List(&gocloud.ListOptions{Prefix: prefix}); ; {
			o, err := objects.Next(ctx)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(Object{}, fmt.Errorf("list objects: %w", err))
				return
			}
			if !yield(Object{Name: o.Key, Size: o.Size, Modified: o.ModTime}, nil) {
				return
			}
		}
	}
}

// Write makes or replaces an object.
func (b *Bucket) Write(ctx context.Context, name string, content []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := b.bucket.WriteAll(ctx, name, content, &gocloud.WriterOptions{ContentType: "application/octet-stream"}); err != nil {
		return fmt.Errorf("write object %s: %w", name, err)
	}
	return nil
}

// Delete removes an object. One that is not there is no error.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := known(b.bucket.Delete(ctx, name)); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	return nil
}

// Tidy removes uploads that were begun before a time and never ended. A cloud
// does that by itself.
func (b *Bucket) Tidy(before time.Time) error {
	if b.folder == nil {
		return nil
	}
	return b.folder.tidy(before)
}

func known(err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return ErrNotFound
	}
	return err
}
