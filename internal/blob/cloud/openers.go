// Package cloud opens the buckets of clouds for package blob: S3 and what is
// compatible with it, Google Cloud Storage, and Azure Blob Storage. Credentials
// come from where each cloud's own tools look for them: the environment, files
// of the user, the machine. The main type is Bucket.
package cloud

import (
	"context"
	"fmt"
	"net/url"

	gocloud "gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/blob/s3blob"
	"gocloud.dev/gcp"
)

// openers returns what opens the buckets of each scheme.
func openers() map[string]func(context.Context, *url.URL) (*gocloud.Bucket, error) {
	return map[string]func(context.Context, *url.URL) (*gocloud.Bucket, error){
		s3blob.Scheme:    openS3,
		gcsblob.Scheme:   openGCS,
		azureblob.Scheme: openAzure,
	}
}

// openS3 takes the options of the URL that gocloud.dev documents, among them
// region, endpoint, use_path_style and profile.
func openS3(ctx context.Context, u *url.URL) (*gocloud.Bucket, error) {
	// A presigned URL can only be used with the headers that were signed, and a
	// checksum is one of them that only the SDK would send.
	query := u.Query()
	if !query.Has(checksums) {
		query.Set(checksums, "when_required")
	}
	plain := *u
	plain.RawQuery = query.Encode()
	return new(s3blob.URLOpener).OpenBucketURL(ctx, &plain)
}

const checksums = "request_checksum_calculation"

// openGCS signs with the private key of a service account, or lets Google sign
// when the credentials have none, as on its own machines.
func openGCS(ctx context.Context, u *url.URL) (*gocloud.Bucket, error) {
	// The opener below would go on without credentials, and print that it does.
	if _, err := gcp.DefaultCredentials(ctx); err != nil {
		return nil, fmt.Errorf("no Google credentials: %w: set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account", err)
	}
	return gocloud.DefaultURLMux().OpenBucketURL(ctx, u)
}

// openAzure opens a container of the account that AZURE_STORAGE_ACCOUNT names.
func openAzure(ctx context.Context, u *url.URL) (*gocloud.Bucket, error) {
	bucket, err := gocloud.DefaultURLMux().OpenBucketURL(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("%w: AZURE_STORAGE_ACCOUNT names the account, and AZURE_STORAGE_KEY is one way to its credentials", err)
	}
	return bucket, nil
}
