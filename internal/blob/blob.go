// Package blob keeps objects in a bucket and lends them out by presigned URLs: a
// URL opens one object, by one method, for a short time, to whoever has it, and
// takes no other credential. The main type is Bucket, and Folder is one.
//
// Buckets of clouds are package cloud's. Its libraries are large, and take
// memory also where they are not used; so servers and agents do not link it, but
// start a small program that does, and speak to it by package pipe.
package blob

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// ErrNotFound means that the bucket has no such object.
var ErrNotFound = errors.New("no such object")

// Bucket is where objects are kept. Its methods may be called concurrently, and
// several programs may use the same bucket.
type Bucket interface {
	// Sign returns a URL that opens an object by a method, GET or PUT, for as
	// long as life. When it begins with a slash, it is below the address at which
	// Handler is served.
	Sign(ctx context.Context, method, name string, life time.Duration) (string, error)
	// Stat returns what the bucket knows of an object, or ErrNotFound.
	Stat(ctx context.Context, name string) (Object, error)
	// List goes through the objects whose names begin with prefix, those of one
	// directory next to each other. It ends after an error.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Write makes or replaces an object.
	Write(ctx context.Context, name string, content []byte) error
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, name string) error
	// Tidy removes uploads that were begun before a time and never ended, where
	// the bucket does not do that by itself.
	Tidy(before time.Time) error
	// Handler serves the URLs that begin with a slash, to be mounted at Path. It
	// is nil for a bucket whose URLs somebody else serves.
	Handler() http.Handler
	Close() error
}

// Object is what a bucket says about an object.
type Object struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"` // when it was written, by the clock of the bucket
}

// A name is a path of parts that no bucket, no file system and no URL needs to
// escape, but for the percent signs in it.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9%~_+@=.-]+(/[A-Za-z0-9%~_+@=.-]+)*$`)

// CheckName says what is wrong with the name of an object.
func CheckName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if part == "." || part == ".." {
			return fmt.Errorf("object name %q leaves the bucket", name)
		}
	}
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%q is no object name", name)
	}
	return nil
}

// CheckMethod says what is wrong with the method of a URL.
func CheckMethod(method string) error {
	if method != http.MethodGet && method != http.MethodPut {
		return fmt.Errorf("sign URL: method %q, want GET or PUT", method)
	}
	return nil
}
