package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Put stores size bytes of content as an object. Its length is sent with it: a
// bucket takes nothing else by a presigned URL. Each try asks for a URL, as one
// may have expired while the try before it went on.
func Put(ctx context.Context, o Options, where URL, content io.ReaderAt, size int64) error {
	if size > o.MaxSize {
		return ErrTooLarge
	}
	return o.persist(ctx, func(ctx context.Context) (bool, error) {
		url, err := where(ctx)
		if err != nil {
			return false, &refusal{err}
		}
		return false, o.putOnce(ctx, url, content, size)
	})
}

func (o Options) putOnce(parent context.Context, url string, content io.ReaderAt, size int64) error {
	ctx, dog := watch(parent, o.Stall)
	defer dog.stop()
	body := func() (io.ReadCloser, error) {
		return io.NopCloser(touching{io.NewSectionReader(content, 0, size), dog.touch}), nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, nil)
	if err != nil {
		return errors.New("the service gave a URL that is none")
	}
	req.ContentLength, req.GetBody = size, body
	if size > 0 {
		req.Body, _ = body()
	}
	req.Header.Set("X-Ms-Blob-Type", "BlockBlob") // Azure wants to be told, and nobody else minds
	res, err := o.HTTP.Do(req)
	if err != nil {
		return o.plain(ctx, err)
	}
	switch {
	case res.StatusCode == http.StatusRequestEntityTooLarge:
		res.Body.Close()
		return fmt.Errorf("%w by the storage", ErrTooLarge)
	case res.StatusCode >= 300:
		return statusError(res)
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return o.plain(ctx, err)
	}
	return nil
}
