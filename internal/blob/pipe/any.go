package pipe

import (
	"context"
	"strings"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/blob"
)

// Schemes are those of the buckets that can be opened.
const Schemes = "file:///folder, s3://bucket, gs://bucket or azblob://container"

// Known reports whether a URL looks like that of a bucket that can be opened.
func Known(url string) bool {
	scheme, rest, found := strings.Cut(url, "://")
	return found && rest != "" && (scheme == "file" || scheme == "s3" || scheme == "gs" || scheme == "azblob")
}

// OpenAny opens the bucket at a URL: a folder in this process, one of a cloud by
// the program that Find finds, with credentials from environ.
func OpenAny(ctx context.Context, url string, folder blob.FolderOptions, environ []string, log *zap.Logger) (blob.Bucket, error) {
	if strings.HasPrefix(url, "file:") {
		f, err := blob.OpenFolder(url, folder)
		if err != nil {
			return nil, err // and not a Bucket that holds nil
		}
		return f, nil
	}
	path, err := Find()
	if err != nil {
		return nil, err
	}
	c, err := Open(ctx, Options{Path: path, URL: url, Environ: environ, Log: log})
	if err != nil {
		return nil, err
	}
	return c, nil
}
