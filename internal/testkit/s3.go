package testkit

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// S3 is a server that speaks the protocol of S3, with one bucket.
type S3 struct {
	URL    string // of the bucket, for package blob
	Root   string // the directory of its objects
	Access string
	Secret string
}

// Environ returns the variables by which a program finds the credentials.
func (s S3) Environ() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": s.Access, "AWS_SECRET_ACCESS_KEY": s.Secret, "AWS_REGION": "us-east-1",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	}
}

// StartS3 starts versitygw, which must be on the PATH, and ends it with the test.
func StartS3(t testing.TB) S3 {
	t.Helper()
	program := Path(t, "versitygw")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close() // versitygw cannot be given a listener
	const bucket = "longshore"
	dir := t.TempDir()
	s := S3{
		URL:  fmt.Sprintf("s3://%s?region=us-east-1&endpoint=http://%s&use_path_style=true", bucket, address),
		Root: filepath.Join(dir, "data", bucket), Access: "longshore-test", Secret: "not-a-secret-but-long-enough",
	}
	for _, path := range []string{s.Root, filepath.Join(dir, "attributes")} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, program, "--port", address, "--region", "us-east-1", "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "attributes"), filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.Access, "ROOT_SECRET_KEY="+s.Secret)
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // killed, as it was told
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // polls a condition
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("versitygw does not answer on %s: %v", address, err)
		}
	}
}
