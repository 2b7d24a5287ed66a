package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/go-units"

	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/blob/pipe"
	"github.com/longshore-run/longshore/internal/cachestore"
)

// The values of --cache-scope, and what turns the cache off.
const (
	scopeStack   = "stack"
	scopeProject = "project"
	cacheOff     = "off"
)

// cacheSettings are the options of the dependency cache, understood and checked.
type cacheSettings struct {
	shared               bool
	maxEntry, maxProject int64
	unread               time.Duration
}

func (o *options) checkCache(wrong func(flag, format string, args ...any)) cacheSettings {
	if o.cacheURL != "" && o.cacheURL != cacheOff && !pipe.Known(o.cacheURL) {
		wrong("cache-url", "no bucket: want off, %s", pipe.Schemes)
	}
	if o.cacheScope != scopeStack && o.cacheScope != scopeProject {
		wrong("cache-scope", "%q is no scope: want stack or project", o.cacheScope)
	}
	return cacheSettings{
		shared:     o.cacheScope == scopeProject,
		maxEntry:   size(o.cacheMaxEntry, "cache-max-entry", wrong),
		maxProject: size(o.cacheMaxProject, "cache-max-project", wrong),
		unread:     duration(o.cacheUnread, "cache-unread", wrong),
	}
}

func size(text, flag string, wrong func(flag, format string, args ...any)) int64 {
	n, err := units.RAMInBytes(text)
	if err != nil || n <= 0 {
		wrong(flag, "%q: want a size such as 500MiB or 5GiB", text)
	}
	return n
}

// openCache opens the bucket of the dependency cache. Where the bucket is a
// folder, the server itself serves it.
func (p *plane) openCache(ctx context.Context) error {
	if p.cacheURL == cacheOff {
		return nil
	}
	bucket := p.cacheURL
	if bucket == "" {
		dir, err := filepath.Abs(p.dataDir)
		if err != nil {
			return unusable(p.dataDir, err)
		}
		bucket = (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(dir, "cache"))}).String()
	}
	key, err := urlsKey(p.dataDir)
	if err != nil {
		return err
	}
	p.bucket, err = pipe.OpenAny(ctx, bucket, blob.FolderOptions{
		Key: key, MaxBytes: p.cache.maxEntry,
		Observe: func(method, name string, bytes int64, took time.Duration) {
			p.entries.Observe(method, name, bytes, took)
		},
	}, p.environ, p.log)
	if err != nil {
		return fmt.Errorf("dependency cache: %w, or choose another with --cache-url", err)
	}
	p.entries = cachestore.New(cachestore.Options{
		Bucket: p.bucket, Log: p.log, Registerer: p.registry, Namespace: "longshore_server",
		Shared: p.cache.shared, MaxEntry: p.cache.maxEntry, MaxProject: p.cache.maxProject, Unread: p.cache.unread,
	})
	return nil
}

// urlsKey returns the key that signs the URLs of a folder, from urls.key in dir.
// It makes one when there is none: nothing is lost with an old one but URLs that
// live minutes.
func urlsKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, "urls.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, blob.MinKeyBytes)
		rand.Read(key) // never fails, by its documentation
		// Another server may be doing the same: the first one wins.
		if err = place(path, key); errors.Is(err, fs.ErrExist) {
			key, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, unusable(dir, err)
	}
	if len(key) < blob.MinKeyBytes {
		return nil, fmt.Errorf("%s has %d bytes instead of %d: remove it, and a new one is made", path, len(key), blob.MinKeyBytes)
	}
	return key, nil
}
