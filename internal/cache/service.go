package cache

import (
	"context"

	"github.com/longshore-run/longshore/internal/api/client"
)

// HTTP is the cache API of a deployment service, for one stack.
type HTTP struct{ stack *client.Stack }

// NewHTTP returns the Service of a stack.
func NewHTTP(stack *client.Stack) HTTP { return HTTP{stack} }

// URL asks for a URL of an entry.
func (h HTTP) URL(ctx context.Context, method, key, prefix string) (Link, error) {
	u, err := h.stack.CacheURL(ctx, method, key, prefix)
	return Link{URL: string(u.URL), Key: u.Key, Size: u.Size, Chunked: u.Chunked}, err
}

// Drop removes an entry, where the service can do that.
func (h HTTP) Drop(ctx context.Context, key string) error { return h.stack.DropCacheEntry(ctx, key) }
