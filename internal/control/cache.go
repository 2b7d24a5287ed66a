package control

import (
	"context"
	"net/http"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/cachestore"
)

// Cache keeps what jobs want to find again: *cachestore.Store. A URL that begins
// with a slash is one of this service.
type Cache interface {
	Get(ctx context.Context, o cachestore.Owner, key, prefix string) (cachestore.Link, error)
	Put(ctx context.Context, o cachestore.Owner, key string) (cachestore.Link, error)
	Drop(ctx context.Context, o cachestore.Owner, key string) error
	Clear(ctx context.Context, o cachestore.Owner) error
}

// CacheURL returns a URL by which an entry of the dependency cache can be got or
// put. A job has the entries of its own stack.
func (s *Service) CacheURL(ctx context.Context, p Principal, stack StackRef, req api.CacheURLRequest) (api.CacheURLResponse, error) {
	if err := s.mayCache(ctx, p, stack); err != nil {
		return api.CacheURLResponse{}, err
	}
	var problems problems
	if req.Method != http.MethodGet && req.Method != http.MethodPut {
		problems.add("method", "%q is neither GET nor PUT", shorten(req.Method))
	}
	problems.checkCacheKey("key", req.Key)
	if req.Prefix != "" {
		problems.checkCacheKey("prefix", req.Prefix)
	}
	if err := problems.err(); err != nil {
		return api.CacheURLResponse{}, err
	}
	var link cachestore.Link
	var err error
	if req.Method == http.MethodPut {
		link, err = s.cache.Put(ctx, owner(stack), req.Key)
	} else {
		link, err = s.cache.Get(ctx, owner(stack), req.Key, req.Prefix)
	}
	if err != nil {
		return api.CacheURLResponse{}, cacheUnavailable(err)
	}
	if link.URL[0] == '/' {
		link.URL = s.publicURL + link.URL
	}
	return api.CacheURLResponse{URL: link.URL, Key: link.Key, Size: link.Size}, nil
}

// DropCacheEntry removes one entry of a stack.
func (s *Service) DropCacheEntry(ctx context.Context, p Principal, stack StackRef, key string) error {
	if err := s.mayCache(ctx, p, stack); err != nil {
		return err
	}
	var problems problems
	problems.checkCacheKey("key", key)
	if err := problems.err(); err != nil {
		return err
	}
	if err := s.cache.Drop(ctx, owner(stack), key); err != nil {
		return cacheUnavailable(err)
	}
	return nil
}

// ClearCache removes all entries of the project that a stack is of.
func (s *Service) ClearCache(ctx context.Context, p Principal, stack StackRef) error {
	if err := p.need(KindUser); err != nil {
		return err
	}
	if err := s.mayCache(ctx, p, stack); err != nil {
		return err
	}
	if err := s.cache.Clear(ctx, owner(stack)); err != nil {
		return cacheUnavailable(err)
	}
	return nil
}

// mayCache refuses those who have no part in the cache of a stack, before it
// says whether there is such a stack.
func (s *Service) mayCache(ctx context.Context, p Principal, stack StackRef) error {
	switch p.Kind {
	case KindUser:
	case KindJob:
		if p.Stack != stack {
			return api.Errorf(http.StatusForbidden, "the token belongs to a job of another stack")
		}
		if p.JobEnded {
			return api.Errorf(http.StatusForbidden, "the job has ended")
		}
	default:
		return p.need(KindJob)
	}
	if err := s.known(stack.Organization); err != nil {
		return err
	}
	err := s.store.View(ctx, func(tx Tx) error {
		_, err := tx.LatestVersion(stack)
		return orNotFound(err, "stack %s is not known: a stack is known from its first deployment on", stack)
	})
	if err != nil {
		return err
	}
	if s.cache == nil {
		return api.Errorf(http.StatusNotFound, "this service keeps no dependency cache")
	}
	return nil
}

func owner(stack StackRef) cachestore.Owner {
	return cachestore.Owner{Organization: stack.Organization, Project: stack.Project, Stack: stack.Stack}
}

func (p *problems) checkCacheKey(field, key string) {
	if err := cachestore.CheckKey(key); err != nil {
		p.add(field, "%q is no key: %v", shorten(key), err)
	}
}

// cacheUnavailable says that the bucket does not do what it is asked to. Jobs go
// on without the cache.
func cacheUnavailable(err error) error {
	return &api.Error{Code: http.StatusServiceUnavailable, Message: "the bucket of the dependency cache cannot be used now", Err: err}
}
