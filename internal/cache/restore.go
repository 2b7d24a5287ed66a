package cache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/longshore-run/longshore/internal/cache/archive"
	"github.com/longshore-run/longshore/internal/cache/transfer"
	"github.com/longshore-run/longshore/internal/unpack"
)

// Restore fills the folders of a recipe from the entry with its key, or else
// from the newest with its prefix. The Outcome is Hit, PartialHit, Miss, Skipped
// or Off.
func (c *Cache) Restore(ctx context.Context, r Recipe) Outcome {
	began := time.Now()
	ctx, cancel, not := c.begin(ctx, r)
	if not != nil {
		return *not
	}
	defer cancel()
	o := c.restore(ctx, r)
	o.Took = time.Since(began)
	return o
}

func (c *Cache) restore(ctx context.Context, r Recipe) Outcome {
	for again := false; ; again = true {
		e, err := c.find(ctx, r)
		if err == nil {
			err = c.fetch(ctx, r, e)
		}
		switch {
		case err == nil && e.key == r.Key:
			o := r.outcome(Hit, "")
			o.Key, o.Size = e.key, e.size
			return o
		case err == nil:
			o := r.outcome(PartialHit, "there is no entry "+r.Key)
			o.Key, o.Size = e.key, e.size
			return o
		case errors.Is(err, transfer.ErrReplaced) && !again:
			continue
		}
		return c.miss(ctx, r, e, err)
	}
}

// found is an entry that may be there.
type found struct {
	url  string // for the first request; empty afterwards
	key  string
	size int64 // 0 when it is not known yet
}

// find asks the service for an entry.
func (c *Cache) find(ctx context.Context, r Recipe) (*found, error) {
	link, err := c.o.Service.URL(ctx, http.MethodGet, r.Key, r.Prefix)
	if err != nil {
		return &found{key: r.Key}, fmt.Errorf("the cache gives no URL: %w", err)
	}
	e := &found{url: link.URL, key: link.Key, size: link.Size}
	if e.key == "" {
		e.key = r.Key
	}
	if e.size > c.o.MaxSize {
		return e, transfer.ErrTooLarge
	}
	return e, nil
}

// next returns a URL of the entry.
func (c *Cache) next(e *found) transfer.URL {
	return func(ctx context.Context) (string, error) {
		if url := e.url; url != "" {
			e.url = ""
			return url, nil
		}
		link, err := c.o.Service.URL(ctx, http.MethodGet, e.key, "")
		return link.URL, err
	}
}

// fetch downloads an entry, unpacks it beside its folders, and then puts those
// into place.
func (c *Cache) fetch(ctx context.Context, r Recipe, e *found) (err error) {
	download, err := transfer.Get(ctx, c.transfer, c.next(e))
	if err != nil {
		return err
	}
	defer download.Close()
	if download.Size > 0 {
		e.size = download.Size
	}
	var stages stages
	defer func() {
		if removed := stages.remove(); err != nil { // of use to nobody, and harmless when all is in place
			err = errors.Join(err, removed)
		}
	}()
	for _, f := range r.Folders {
		if err := stages.add(f); err != nil {
			return err
		}
	}
	counted := &counting{r: download}
	limits := unpack.Limits{Bytes: mostRatio * c.o.MaxSize, Files: mostFiles}
	manifest, err := archive.Read(ctx, counted, e.key, stages.folders(), limits)
	if err != nil {
		return err
	}
	e.size = counted.n
	return stages.place(manifest.Folders)
}

// counting counts what is read.
type counting struct {
	r *transfer.Download
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// miss says why nothing was restored, and drops an entry that is of no use to
// anybody.
func (c *Cache) miss(ctx context.Context, r Recipe, e *found, err error) Outcome {
	o := r.outcome(Miss, "")
	var bad *unpack.Error
	switch {
	case errors.Is(err, transfer.ErrNone):
		o.Reason = none(r, err)
		return o
	case errors.As(err, &bad):
		o.Reason = "the entry cannot be used: " + bad.Reason
	case errors.Is(err, transfer.ErrTooLarge):
		o.Reason = fmt.Sprintf("the entry cannot be used: it is larger than %s", sized(c.o.MaxSize))
	default:
		o.Reason = oneLine(err)
		return o
	}
	o.Key, o.Size = e.key, e.size
	if err := c.o.Service.Drop(ctx, e.key); err != nil {
		o.Reason += "; it could not be dropped: " + oneLine(err)
	} else {
		o.Reason += "; it was dropped"
	}
	return o
}

func none(r Recipe, err error) string {
	reason := "there is no entry with this key"
	if r.Prefix != "" {
		reason += ", and none that begins with " + r.Prefix
	}
	var status *transfer.StatusError
	if errors.As(err, &status) && status.Status == http.StatusForbidden {
		reason += " (" + status.Error() + ")"
	}
	return reason
}
