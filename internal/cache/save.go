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

// save makes the archive and stores it: while it is made, where the URL takes
// that; else, and when that did not succeed, by way of a file.
func (c *Cache) save(ctx context.Context, r Recipe) (size int64, err error) {
	link, err := c.place(ctx, r)
	if err != nil {
		return 0, err
	}
	if link.Chunked {
		err := transfer.Stream(ctx, c.transfer, link.URL, func(ctx context.Context, w io.Writer) (err error) {
			size, err = c.pack(ctx, w, r)
			return err
		})
		var made *transfer.WriteError
		switch {
		case errors.As(err, &made):
			return 0, made.Err
		case err == nil, errors.Is(err, transfer.ErrTooLarge), ctx.Err() != nil:
			return size, stored(err, size)
		}
		link.URL = ""
	}
	return c.spool(ctx, r, link.URL)
}

// place asks the service where to put the entry.
func (c *Cache) place(ctx context.Context, r Recipe) (Link, error) {
	link, err := c.o.Service.URL(ctx, http.MethodPut, r.Key, "")
	if err != nil {
		return Link{}, fmt.Errorf("the cache gives no URL: %w", err)
	}
	return link, nil
}

// spool writes the archive to a file without a name and stores that, because a
// bucket wants to know how long it is. First is the URL for the first try, or
// empty.
func (c *Cache) spool(ctx context.Context, r Recipe, first string) (size int64, err error) {
	file, err := os.CreateTemp(c.o.Dir, "longshore-cache-")
	if err != nil {
		return 0, fmt.Errorf("make a file for the archive: %w", err)
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return 0, fmt.Errorf("make a file for the archive: %w", err)
	}
	if size, err = c.pack(ctx, file, r); err != nil {
		return 0, err
	}
	where := func(ctx context.Context) (string, error) {
		if url := first; url != "" {
			first = ""
			return url, nil
		}
		link, err := c.place(ctx, r)
		return link.URL, err
	}
	return size, stored(transfer.Put(ctx, c.transfer, where, file, size), size)
}

// stored says what went wrong when an archive was stored.
func stored(err error, size int64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, transfer.ErrTooLarge):
		return fmt.Errorf("%s are too much for the storage", sized(size))
	}
	return fmt.Errorf("store the archive: %w", err)
}

// pack writes the archive of a recipe.
func (c *Cache) pack(ctx context.Context, w io.Writer, r Recipe) (int64, error) {
	var folders []archive.Folder
	for _, f := range r.Folders {
		folders = append(folders, archive.Folder{Name: f.Name, Path: f.Path})
	}
	out := &counted{w: w}
	manifest, err := archive.Write(ctx, out, r.Key, folders, c.o.MaxSize)
	switch {
	case errors.Is(err, archive.ErrTooLarge):
		return 0, fmt.Errorf("there is more to keep than %s", sized(c.o.MaxSize))
	case err != nil:
		return 0, fmt.Errorf("make the archive: %w", err)
	case len(manifest.Folders) == 0:
		return 0, fmt.Errorf("there is nothing to keep: its folders are missing or empty")
	}
	return out.n, nil
}

// counted counts what is written.
type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
