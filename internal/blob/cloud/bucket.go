package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	gocloud "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/longshore-run/longshore/internal/blob"
)

// Bucket is a bucket of a cloud, which serves its own URLs.
type Bucket struct{ bucket *gocloud.Bucket }

var _ blob.Bucket = (*Bucket)(nil)

// Open opens the bucket at a URL such as s3://bucket. The caller closes it.
func Open(ctx context.Context, text string) (*Bucket, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("not the URL of a bucket: want s3://bucket, gs://bucket or azblob://container")
	}
	open := openers()[u.Scheme]
	if open == nil {
		return nil, fmt.Errorf("%q is no scheme of a bucket: want s3://bucket, gs://bucket or azblob://container", u.Scheme)
	}
	if u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" {
		return nil, errors.New("want " + u.Scheme + "://bucket, with neither a user nor a path")
	}
	bucket, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return &Bucket{bucket}, nil
}

// Close lets go of the bucket.
func (b *Bucket) Close() error { return b.bucket.Close() }

// Handler returns nil.
func (b *Bucket) Handler() http.Handler { return nil }

// Tidy does nothing: an upload that did not end leaves nothing.
func (b *Bucket) Tidy(time.Time) error { return nil }

// Sign returns a presigned URL.
func (b *Bucket) Sign(ctx context.Context, method, name string, life time.Duration) (string, error) {
	if err := errors.Join(blob.CheckName(name), blob.CheckMethod(method)); err != nil {
		return "", err
	}
	signed, err := b.bucket.SignedURL(ctx, name, &gocloud.SignedURLOptions{Method: method, Expiry: life})
	if err != nil {
		return "", fmt.Errorf("sign URL: %w", err)
	}
	return signed, nil
}

// Stat returns what the bucket knows of an object.
func (b *Bucket) Stat(ctx context.Context, name string) (blob.Object, error) {
	if err := blob.CheckName(name); err != nil {
		return blob.Object{}, err
	}
	a, err := b.bucket.Attributes(ctx, name)
	if err != nil {
		return blob.Object{}, fmt.Errorf("look at object %s: %w", name, known(err))
	}
	return blob.Object{Name: name, Size: a.Size, Modified: a.ModTime}, nil
}

// List goes through the objects whose names begin with prefix.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		for objects := b.bucket.List(&gocloud.ListOptions{Prefix: prefix}); ; {
			o, err := objects.Next(ctx)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(blob.Object{}, fmt.Errorf("list objects: %w", err))
				return
			}
			if !yield(object(o), nil) {
				return
			}
		}
	}
}

// Page returns some of the objects whose names begin with prefix, and the token
// by which the next ones are asked for, nil at the end. The first token is nil.
func (b *Bucket) Page(ctx context.Context, prefix string, token []byte, size int) (objects []blob.Object, next []byte, err error) {
	if token == nil {
		token = gocloud.FirstPageToken
	}
	page, next, err := b.bucket.ListPage(ctx, token, size, &gocloud.ListOptions{Prefix: prefix})
	if err != nil {
		return nil, nil, fmt.Errorf("list objects: %w", err)
	}
	for _, o := range page {
		objects = append(objects, object(o))
	}
	return objects, next, nil
}

func object(o *gocloud.ListObject) blob.Object {
	return blob.Object{Name: o.Key, Size: o.Size, Modified: o.ModTime}
}

// Write makes or replaces an object.
func (b *Bucket) Write(ctx context.Context, name string, content []byte) error {
	if err := blob.CheckName(name); err != nil {
		return err
	}
	if err := b.bucket.WriteAll(ctx, name, content, &gocloud.WriterOptions{ContentType: "application/octet-stream"}); err != nil {
		return fmt.Errorf("write object %s: %w", name, err)
	}
	return nil
}

// Delete removes an object.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := blob.CheckName(name); err != nil {
		return err
	}
	if err := known(b.bucket.Delete(ctx, name)); err != nil && !errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	return nil
}

func known(err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return blob.ErrNotFound
	}
	return err
}
