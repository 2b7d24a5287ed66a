package cachestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/blob"
)

// sweepEvery is how often Run looks for what has to go.
const sweepEvery = time.Hour

// abandoned is how old an upload is that will not end any more: a URL lives
// minutes, and what it opened moves or is cut.
const abandoned = 24 * time.Hour

// Run sweeps now and then until ctx ends. Call it once.
func (s *Store) Run(ctx context.Context) {
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("sweep of the dependency cache", zap.Error(err))
		}
		// Those that share a bucket should not all do it at the same time.
		wait := time.NewTimer(sweepEvery + rand.N(sweepEvery/4)) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// entry is an entry of the cache as a sweep sees it.
type entry struct {
	blob.Object
	used   time.Time
	reason string // why it goes
}

// Sweep drops the entries that nobody has used for long, those that are too
// large, and of a project that has too much those that were used the longest
// ago. Others may sweep the same bucket at the same time.
func (s *Store) Sweep(ctx context.Context) error {
	began := s.Now()
	errs := []error{s.Bucket.Tidy(began.Add(-abandoned))}
	var t totals
	var of string // the project that objects are gathered of; a list is in order
	var objects []blob.Object
	flush := func() {
		errs = append(errs, s.sweepProject(ctx, objects, &t))
		objects = objects[:0]
	}
	for object, err := range s.Bucket.List(ctx, root) {
		if err != nil {
			return errors.Join(append(errs, err)...) // what is not listed is not judged
		}
		project, ours := projectOf(object.Name)
		if !ours {
			continue
		}
		if project != of {
			flush()
			of = project
		}
		objects = append(objects, object)
	}
	flush()
	s.metrics.entries.Set(float64(t.entries))
	s.metrics.bytes.Set(float64(t.bytes))
	if t.dropped > 0 {
		s.Log.Info("entries of the dependency cache dropped",
			zap.Int("dropped", t.dropped), zap.Int("entries", t.entries), zap.Int64("bytes", t.bytes))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("drop entries: %w", err)
	}
	return nil
}

// totals are what a sweep leaves.
type totals struct {
	entries, dropped int
	bytes            int64
}

func (s *Store) sweepProject(ctx context.Context, objects []blob.Object, t *totals) error {
	entries, orphans := s.judge(objects)
	var errs []error
	for _, name := range orphans {
		errs = append(errs, s.Bucket.Delete(ctx, name))
	}
	for _, e := range entries {
		gone := false
		if e.reason != "" {
			var err error
			gone, err = s.drop(ctx, e)
			errs = append(errs, err)
		}
		if gone {
			t.dropped++
			s.metrics.dropped.WithLabelValues(e.reason).Inc()
		} else {
			t.entries++
			t.bytes += e.Size
		}
	}
	return errors.Join(errs...)
}

// judge says which entries of a project go, and which markers have none. It
// depends on nothing but the objects and the time.
func (s *Store) judge(objects []blob.Object) (entries []entry, orphans []string) {
	noted := map[string]time.Time{}
	for _, o := range objects {
		if strings.HasSuffix(o.Name, markerEnd) {
			noted[o.Name] = o.Modified
		}
	}
	for _, o := range objects {
		if !strings.HasSuffix(o.Name, entryEnd) {
			continue
		}
		e := entry{Object: o, used: o.Modified}
		if at := noted[markerOf(o.Name)]; at.After(e.used) {
			e.used = at
		}
		delete(noted, markerOf(o.Name))
		entries = append(entries, e)
	}
	for name, at := range noted {
		if s.Now().Sub(at) > markEvery { // else its entry may have come after the list
			orphans = append(orphans, name)
		}
	}
	// The latest first: they have the first claim to the room.
	slices.SortFunc(entries, func(a, b entry) int {
		if c := b.used.Compare(a.used); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	room := s.MaxProject
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Size > s.MaxEntry:
			e.reason = reasonLarge
		case s.Now().Sub(e.used) > s.Unread:
			e.reason = reasonUnread
		case e.Size > room:
			e.reason, room = reasonRoom, 0 // nor is there room for what is older
		default:
			room -= e.Size
		}
	}
	return entries, orphans
}

// drop removes an entry, unless it was replaced or used since it was listed.
func (s *Store) drop(ctx context.Context, e entry) (bool, error) {
	now, err := s.Bucket.Stat(ctx, e.Name)
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return true, nil // somebody else was faster
	case err != nil:
		return false, err
	case now.Size != e.Size || !now.Modified.Equal(e.Modified):
		return false, nil
	}
	if e.reason != reasonLarge {
		marker, err := s.Bucket.Stat(ctx, markerOf(e.Name))
		if err != nil && !errors.Is(err, blob.ErrNotFound) {
			return false, err
		}
		if err == nil && marker.Modified.After(e.used) {
			return false, nil
		}
	}
	if err := s.remove(ctx, e.Name); err != nil {
		return false, err
	}
	return true, nil
}
