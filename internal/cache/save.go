package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/longshore-run/longshore/internal/cache/archive"
	"github.com/longshore-run/longshore/internal/cache/transfer"
)

// Save keeps the folders of a recipe under its key. The Outcome is Saved,
// Skipped or Off. Restored is what Restore said of the same recipe, or the zero
// Outcome: when it was a hit, there is nothing to save.
func (c *Cache) Save(ctx context.Context, r Recipe, restored Outcome) Outcome {
	began := time.Now()
	ctx, cancel, not := c.begin(ctx, r)
	if not != nil {
		return *not
	}
	defer cancel()
	if restored.Result == Hit && restored.Key == r.Key {
		return r.outcome(Skipped, "it was restored from this entry")
	}
	size, err := c.save(ctx, r)
	o := r.outcome(Saved, "")
	if err != nil {
		o = r.outcome(Skipped, oneLine(err))
	} else {
		o.Key, o.Size = r.Key, size
	}
	o.Took = time.Since(began)
	return o
}

// save makes the archive and stores it. The archive is written to a file without
// a name first, because a bucket wants to know how long it is.
func (c *Cache) save(ctx context.Context, r Recipe) (size int64, err error) {
	spool, err := os.CreateTemp(c.o.Dir, "longshore-cache-")
	if err != nil {
		return 0, fmt.Errorf("make a file for the archive: %w", err)
	}
	defer spool.Close()
	if err := os.Remove(spool.Name()); err != nil {
		return 0, fmt.Errorf("make a file for the archive: %w", err)
	}
	if size, err = c.pack(ctx, spool, r); err != nil {
		return 0, err
	}
	where := func(ctx context.Context) (string, error) {
		link, err := c.o.Service.URL(ctx, http.MethodPut, r.Key, "")
		if err != nil {
			return "", fmt.Errorf("the cache gives no URL: %w", err)
		}
		return link.URL, nil
	}
	if err := transfer.Put(ctx, c.transfer, where, spool, size); err != nil {
		if errors.Is(err, transfer.ErrTooLarge) {
			return 0, fmt.Errorf("%s are too much for the storage", sized(size))
		}
		return 0, fmt.Errorf("store the archive: %w", err)
	}
	return size, nil
}

// pack writes the archive of a recipe.
func (c *Cache) pack(ctx context.Context, to *os.File, r Recipe) (int64, error) {
	var folders []archive.Folder
	for _, f := range r.Folders {
		folders = append(folders, archive.Folder{Name: f.Name, Path: f.Path})
	}
	manifest, err := archive.Write(ctx, to, r.Key, folders, c.o.MaxSize)
	switch {
	case errors.Is(err, archive.ErrTooLarge):
		return 0, fmt.Errorf("there is more to keep than %s", sized(c.o.MaxSize))
	case err != nil:
		return 0, fmt.Errorf("make the archive: %w", err)
	case len(manifest.Folders) == 0:
		return 0, fmt.Errorf("there is nothing to keep: its folders are missing or empty")
	}
	return to.Seek(0, io.SeekEnd)
}
