// Package cache keeps folders of a job for later jobs: what a package manager
// downloaded, what it made of it. It is the engine inside the job. It makes and
// reads the archives (package archive), moves them through URLs that a service
// hands out (package transfer), and says in one line what came of it. What is to
// be kept, and under which key, is the caller's: a Recipe. The main type is
// Cache.
//
// The contract:
//
//   - Restore and Save never fail a job. Whatever goes wrong is an Outcome, with
//     its reason in words for a person. They return soon after their context
//     ends, and after Options.Timeout at the latest.
//   - Restore fills all folders of a recipe or none. Until the whole entry was
//     read and its sums were right, a folder is as it was before.
//   - An entry that is damaged, foreign or too large is dropped from the cache.
//   - Save reads the folders and changes nothing in them. Of two that save under
//     the same key, the last one to finish counts, whole.
//   - URLs of a Service are secrets: they are in no Outcome.
//   - One Cache may be used by several goroutines, for different folders.
package cache

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/longshore-run/longshore/internal/cache/transfer"
)

// Folder is one directory that an entry keeps.
type Folder struct {
	// Name stands for the folder inside the archive ("node_modules",
	// "npm-cache"), so that an entry can be restored into another workspace or
	// home. It is one to 100 letters, digits, dots, dashes and underscores and
	// does not begin with a dot.
	Name string
	// Path is where the folder is now, absolute. When it is missing, Save leaves
	// it out, and Restore makes it.
	Path string
	// Merge says what becomes of a folder that is there already when an entry is
	// restored. With Merge, files that are there stay and those that are not are
	// added: right for stores of a package manager. Without, what is there makes
	// way for the entry: right for what was installed by a lock file.
	Merge bool
}

// Recipe says what belongs into an entry, and under which key. It is plain data.
type Recipe struct {
	Manager string // "npm", "go", "plugins"; one of few, for labels of metrics
	Key     string // exact; see ValidKey
	Prefix  string // the newest entry whose key begins with it serves in place of Key; empty for none
	Folders []Folder
}

// Link is where an entry can be read or written.
type Link struct {
	URL  string // presigned, for one method; a secret
	Key  string // of the entry that the URL opens; empty means the key that was asked for
	Size int64  // of the entry in bytes, 0 when the service does not say
	// Chunked says that a PUT may go without its length being known before, which
	// saves a copy on the job's disk. Buckets do not take that; folders can.
	Chunked bool
}

// Service hands out URLs. NewHTTP returns the one that a deployment service has.
type Service interface {
	// URL returns a URL for GET or PUT of the entry with a key. With GET and a
	// prefix, and when there is no entry with this key, the URL is that of the
	// newest entry whose key begins with prefix. When there is none either, there
	// may be a URL all the same, which answers 404 or 403.
	URL(ctx context.Context, method, key, prefix string) (Link, error)
	// Drop removes an entry. It is no error when there is none, or when the
	// service has no such call.
	Drop(ctx context.Context, key string) error
}

// Options configure a Cache. Only Service is required for one that is on.
type Options struct {
	Service Service       // nil: the cache is off
	Off     string        // why Service is nil, for the Outcome; "the cache is off" by default
	CA      []byte        // certificates (PEM) of authorities that are trusted beside those of the system
	MaxSize int64         // of an entry as it is stored; default 5 GB
	Timeout time.Duration // of one Restore or Save; default 15 minutes
	Stall   time.Duration // without a byte moving, after which a connection is given up; default 30 s
	Retry   time.Duration // before the first repeat of a transfer, growing from there; default 500 ms
	Dir     string        // for the one temporary file of Save; default os.TempDir()
}

// Cache restores and saves entries.
type Cache struct {
	o        Options
	transfer transfer.Options
}

// Defaults and bounds.
const (
	defaultMaxSize = 5_000_000_000 // one PUT of every kind of bucket takes it
	defaultTimeout = 15 * time.Minute
	defaultStall   = 30 * time.Second
	defaultRetry   = 500 * time.Millisecond

	retries  = 3
	segment  = 4 << 20
	parallel = 4

	mostFiles = 2_000_000
	mostRatio = 20 // of what is unpacked to MaxSize
)

// New returns a Cache, or an error that says what is wrong with the options.
func New(o Options) (*Cache, error) {
	o.MaxSize = cmp.Or(o.MaxSize, defaultMaxSize)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Off = cmp.Or(o.Off, "the cache is off")
	transport, err := transfer.NewTransport(o.CA)
	if err != nil {
		return nil, err
	}
	return &Cache{o: o, transfer: transfer.Options{
		HTTP:    &http.Client{Transport: transport},
		Segment: segment, Parallel: parallel, Retries: retries, MaxSize: o.MaxSize,
		Stall: cmp.Or(o.Stall, defaultStall), Retry: cmp.Or(o.Retry, defaultRetry),
	}}, nil
}

// Close closes the connections that are not in use.
func (c *Cache) Close() { c.transfer.HTTP.CloseIdleConnections() }

// begin checks what Restore and Save have in common. When there is nothing to do,
// the Outcome says why.
func (c *Cache) begin(ctx context.Context, r Recipe) (context.Context, context.CancelFunc, *Outcome) {
	var not Outcome
	switch {
	case c.o.Service == nil:
		not = r.outcome(Off, c.o.Off)
	case !ValidKey(r.Key):
		not = r.outcome(Skipped, fmt.Sprintf("%q cannot be a key of the cache", r.Key))
	case r.Prefix != "" && !ValidKey(r.Prefix):
		not = r.outcome(Skipped, fmt.Sprintf("%q cannot begin a key of the cache", r.Prefix))
	case !r.placed():
		not = r.outcome(Skipped, "its folders are not such that they can be kept")
	default:
		ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, fmt.Errorf("not done after %s", c.o.Timeout))
		return ctx, cancel, nil
	}
	return nil, nil, &not
}

// placed reports whether the folders have names and places of their own.
func (r Recipe) placed() bool {
	names := map[string]bool{}
	for i, f := range r.Folders {
		if !plainName(f.Name, 100) || names[f.Name] || !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) == "/" {
			return false
		}
		names[f.Name] = true
		for _, g := range r.Folders[:i] {
			if within(f.Path, g.Path) || within(g.Path, f.Path) {
				return false
			}
		}
	}
	return len(r.Folders) > 0
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	relative, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(relative)
}

// ValidKey reports whether key can be that of an entry: 1 to 256 letters, digits,
// dots, dashes and underscores, and no dot at the beginning.
func ValidKey(key string) bool { return plainName(key, 256) }

func plainName(name string, most int) bool {
	if name == "" || len(name) > most || name[0] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
