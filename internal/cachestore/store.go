// Package cachestore keeps the entries of the dependency cache in a bucket: which
// of them a job is given, by a presigned URL, and which are dropped when. The
// bucket is all there is. It is listed to find an entry, and a small object
// beside the entry says when it was last used; so the same store serves a server
// and an agent, and several of them may share a bucket. What an entry holds is
// none of its business. The main type is Store.
package cachestore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/blob"
)

// Life is how long a URL opens its entry.
const Life = 15 * time.Minute

// Limits that are kept when nothing else is said.
const (
	DefaultMaxEntry   = 5 << 30
	DefaultMaxProject = 20 << 30
	DefaultUnread     = 30 * 24 * time.Hour
)

// markEvery is how old the marker of a use may be before another use is noted.
const markEvery = 24 * time.Hour

// Bucket is where entries are kept: *blob.Bucket.
type Bucket interface {
	Sign(ctx context.Context, method, name string, life time.Duration) (string, error)
	Stat(ctx context.Context, name string) (blob.Object, error)
	List(ctx context.Context, prefix string) iter.Seq2[blob.Object, error]
	Write(ctx context.Context, name string, content []byte) error
	Delete(ctx context.Context, name string) error
	Tidy(before time.Time) error
}

// Options are the parts and settings of a Store. Bucket is required.
type Options struct {
	Bucket     Bucket
	Log        *zap.Logger           // default: none
	Registerer prometheus.Registerer // default: metrics are kept but not registered
	Now        func() time.Time      // default: time.Now; should agree with the clock of the bucket
	Namespace  string                // begins the names of the metrics, such as longshore_server
	// Shared lets all stacks of a project use the same entries.
	Shared     bool
	MaxEntry   int64         // bytes; default DefaultMaxEntry
	MaxProject int64         // bytes of all entries of a project; default DefaultMaxProject
	Unread     time.Duration // after which an entry is dropped; default DefaultUnread
}

// Store finds and drops entries. Its methods may be called concurrently.
type Store struct {
	Options
	metrics *metrics
}

// New returns a store over o.
func New(o Options) *Store {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxEntry <= 0 {
		o.MaxEntry = DefaultMaxEntry
	}
	if o.MaxProject <= 0 {
		o.MaxProject = DefaultMaxProject
	}
	if o.Unread <= 0 {
		o.Unread = DefaultUnread
	}
	return &Store{Options: o, metrics: newMetrics(o.Registerer, o.Namespace)}
}

// Link opens one entry by one method, for Life.
type Link struct {
	URL  string // as blob.Bucket.Sign makes it
	Key  string // of the entry that it opens
	Size int64  // of that entry, 0 when there is none yet
}

// Get returns a link to the entry with exactly the key, else to the newest whose
// key begins with prefix, unless that is empty. When there is none it is a link
// all the same: whoever follows it finds out.
func (s *Store) Get(ctx context.Context, o Owner, key, prefix string) (Link, error) {
	dir, err := s.dir(o, key)
	if err == nil && prefix != "" {
		err = CheckKey(prefix)
	}
	if err != nil {
		return Link{}, err
	}
	entry, found, err := s.find(ctx, dir, key, prefix)
	if err != nil {
		return Link{}, fmt.Errorf("find entry: %w", err)
	}
	result := resultMiss
	link := Link{Key: key}
	if found {
		result = resultHit
		link.Key, link.Size = keyOf(entry.Name), entry.Size
		if link.Key != key {
			result = resultPartial
		}
		// A use that is not noted may lose the entry too early, and no more.
		if err := s.use(ctx, entry); err != nil {
			s.Log.Warn("use of a cache entry not noted", zap.Error(err))
		}
	}
	if link.URL, err = s.Bucket.Sign(ctx, http.MethodGet, dir+link.Key+entryEnd, Life); err != nil {
		return Link{}, err
	}
	s.metrics.lookups.WithLabelValues(managerOf(key), result).Inc()
	s.metrics.foundBytes.WithLabelValues(managerOf(key)).Add(float64(link.Size))
	return link, nil
}

// Put returns a link by which the entry can be made or replaced.
func (s *Store) Put(ctx context.Context, o Owner, key string) (Link, error) {
	dir, err := s.dir(o, key)
	if err != nil {
		return Link{}, err
	}
	signed, err := s.Bucket.Sign(ctx, http.MethodPut, dir+key+entryEnd, Life)
	if err != nil {
		return Link{}, err
	}
	s.metrics.saves.WithLabelValues(managerOf(key)).Inc()
	return Link{URL: signed, Key: key}, nil
}

// Drop removes an entry. One that is not there is no error.
func (s *Store) Drop(ctx context.Context, o Owner, key string) error {
	dir, err := s.dir(o, key)
	if err != nil {
		return err
	}
	if err := s.remove(ctx, dir+key+entryEnd); err != nil {
		return err
	}
	s.metrics.dropped.WithLabelValues(reasonAsked).Inc()
	return nil
}

// Clear removes all entries of a project.
func (s *Store) Clear(ctx context.Context, o Owner) error {
	if err := o.check(); err != nil {
		return err
	}
	var errs []error
	for object, err := range s.Bucket.List(ctx, project(o.Organization, o.Project)) {
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := s.Bucket.Delete(ctx, object.Name); err != nil {
			errs = append(errs, err)
		} else if strings.HasSuffix(object.Name, entryEnd) {
			s.metrics.dropped.WithLabelValues(reasonAsked).Inc()
		}
	}
	return errors.Join(errs...)
}

// dir returns the prefix of the entries that an owner uses, and checks that a
// key is one.
func (s *Store) dir(o Owner, key string) (string, error) {
	if err := o.check(); err != nil {
		return "", err
	}
	if err := CheckKey(key); err != nil {
		return "", fmt.Errorf("key of a cache entry: %w", err)
	}
	stack := part(o.Stack)
	if s.Shared {
		stack = sharedPart
	}
	return project(o.Organization, o.Project) + stack + "/", nil
}

func (s *Store) find(ctx context.Context, dir, key, prefix string) (entry blob.Object, found bool, err error) {
	entry, err = s.Bucket.Stat(ctx, dir+key+entryEnd)
	switch {
	case err == nil && entry.Size <= s.MaxEntry:
		return entry, true, nil
	case err != nil && !errors.Is(err, blob.ErrNotFound):
		return entry, false, err
	case prefix == "":
		return blob.Object{}, false, nil
	}
	entry = blob.Object{}
	for object, err := range s.Bucket.List(ctx, dir+prefix) {
		if err != nil {
			return blob.Object{}, false, err
		}
		if strings.HasSuffix(object.Name, entryEnd) && strings.HasPrefix(keyOf(object.Name), prefix) && object.Size <= s.MaxEntry && object.Modified.After(entry.Modified) {
			entry, found = object, true
		}
	}
	return entry, found, nil
}

// use notes that an entry is used, unless that was noted not long ago.
func (s *Store) use(ctx context.Context, entry blob.Object) error {
	old := s.Now().Add(-markEvery)
	if entry.Modified.After(old) {
		return nil
	}
	marker := markerOf(entry.Name)
	noted, err := s.Bucket.Stat(ctx, marker)
	if err == nil && noted.Modified.After(old) {
		return nil
	}
	if err != nil && !errors.Is(err, blob.ErrNotFound) {
		return err
	}
	return s.Bucket.Write(ctx, marker, []byte(s.Now().UTC().Format(time.RFC3339)+"\n"))
}

// remove removes an entry and its marker.
func (s *Store) remove(ctx context.Context, name string) error {
	return errors.Join(s.Bucket.Delete(ctx, name), s.Bucket.Delete(ctx, markerOf(name)))
}
