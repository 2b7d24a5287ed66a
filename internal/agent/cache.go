package agent

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/blob/pipe"
	"github.com/longshore-run/longshore/internal/cachestore"
	"github.com/longshore-run/longshore/internal/jobcache"
	"github.com/longshore-run/longshore/internal/runner"
)

// What keeps the dependency cache of jobs, for CacheConfig.Backend.
const (
	CacheService = "service" // the service, if it does
	CacheAgent   = "agent"   // this agent
	CacheOff     = "off"     // nobody
)

// CacheConfig says which dependency cache jobs use. All but Backend is for an
// agent that serves it.
type CacheConfig struct {
	Backend              string // default CacheService
	URL                  string // of the bucket; default the folder cache in the working directory
	Port                 int    // to listen on for jobs; default a free one
	Shared               bool   // stacks of a project share their entries
	MaxEntry, MaxProject int64  // bytes; defaults of cachestore
	Unread               time.Duration
	// Environ is where the bucket of a cloud finds its credentials, in the form
	// of os.Environ.
	Environ []string
}

// cache is the dependency cache that an agent serves to its jobs.
type cache struct {
	bucket blob.Bucket
	store  *cachestore.Store
	server *jobcache.Server
}

// newCache returns the cache that config asks for, nil when the agent serves none.
func newCache(config Config, deps Deps, place backend.Backend, inHand func(jobID string) bool) (*cache, error) {
	if config.Cache.Backend != CacheAgent {
		return nil, nil //nolint:nilnil // there is none, and that is right
	}
	key, err := cacheKey(filepath.Join(config.WorkingDirectory, "cache.key"))
	if err != nil {
		return nil, err
	}
	urlKey, err := hkdf.Key(sha256.New, key, nil, "urls of a folder", blob.MinKeyBytes)
	if err != nil {
		return nil, err
	}
	bucket := config.Cache.URL
	if bucket == "" {
		bucket = (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(config.WorkingDirectory, "cache"))}).String()
	}
	c := new(cache)
	// Nothing is asked of the bucket here, so that an agent starts without it.
	c.bucket, err = pipe.OpenAny(context.Background(), bucket, blob.FolderOptions{
		Key: urlKey, MaxBytes: config.Cache.MaxEntry,
		Observe: func(method, name string, bytes int64, took time.Duration) { c.store.Observe(method, name, bytes, took) },
	}, config.Cache.Environ, deps.Log)
	if err != nil {
		return nil, fmt.Errorf("dependency cache: %w: set cache.url to another", err)
	}
	c.store = cachestore.New(cachestore.Options{
		Bucket: c.bucket, Log: deps.Log, Registerer: deps.Registerer, Namespace: "longshore_agent",
		Shared: config.Cache.Shared, MaxEntry: config.Cache.MaxEntry, MaxProject: config.Cache.MaxProject, Unread: config.Cache.Unread,
	})
	c.server, err = jobcache.New(jobcache.Options{
		Store: c.store, Blobs: c.bucket.Handler(), Key: key,
		Address: hostAddress(place), Port: config.Cache.Port, PortFile: filepath.Join(config.WorkingDirectory, "cache.port"),
		InHand: inHand, Log: deps.Log,
	})
	return c, err
}

// hostAddress returns how jobs of a place reach this host.
func hostAddress(place backend.Backend) func(context.Context) (string, error) {
	if reach, ok := place.(interface {
		HostAddress(ctx context.Context) (string, error)
	}); ok {
		return reach.HostAddress
	}
	return func(context.Context) (string, error) { return "127.0.0.1", nil }
}

// run serves jobs and drops what is old until ctx ends. A nil cache has nothing
// to do.
func (c *cache) run(ctx context.Context) {
	if c == nil {
		return
	}
	var parts sync.WaitGroup
	parts.Go(func() { c.server.Run(ctx) })
	parts.Go(func() { c.store.Run(ctx) })
	parts.Wait()
}

func (c *cache) close() error {
	if c == nil {
		return nil
	}
	return c.bucket.Close()
}

// forJobs returns what the runner gives to jobs.
func (c *cache) forJobs(config CacheConfig) runner.Cache {
	switch {
	case c != nil:
		return c.server
	case config.Backend == CacheOff:
		return noCache{}
	}
	return nil
}

// noCache tells jobs to use none.
type noCache struct{}

func (noCache) Access(context.Context, string, string) (api.JobCache, error) {
	return api.JobCache{Off: "it is switched off on this agent (cache.backend)"}, nil
}

// cacheKey returns the key from which the tokens of jobs and the signatures of
// URLs are derived. It makes one when there is none.
func cacheKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, sha256.Size)
		rand.Read(key) // never fails, by its documentation
		// The working directory is locked: nobody else makes one now.
		err = os.WriteFile(path, key, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("key of the dependency cache: %w", err)
	}
	if len(key) < sha256.Size {
		return nil, fmt.Errorf("key of the dependency cache: %s has %d bytes instead of %d: remove it, and a new one is made", path, len(key), sha256.Size)
	}
	return key, nil
}
