package cloud_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/blob/cloud"
	"github.com/longshore-run/longshore/internal/testkit"
)

const name = "cache/acme/shop/dev/npm-linux-amd64-22.1.0-0123456789abcdef.tar.zst"

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, bucket string) *cloud.Bucket {
	t.Helper()
	b, err := cloud.Open(t.Context(), bucket)
	check(t, err)
	t.Cleanup(func() { check(t, b.Close()) })
	return b
}

func send(t testing.TB, method, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	check(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, string(text)
}

// TestS3 tries everything with a server of others that speaks S3.
func TestS3(t *testing.T) {
	s3 := testkit.StartS3(t)
	for name, value := range s3.Environ() {
		t.Setenv(name, value)
	}
	b := open(t, s3.URL)
	sign := func(method, name string) string {
		t.Helper()
		signed, err := b.Sign(t.Context(), method, name, 15*time.Minute)
		check(t, err)
		return signed
	}
	if b.Handler() != nil {
		t.Error("a bucket of a cloud has a handler")
	}
	put, get := sign("PUT", name), sign("GET", name)
	if code, text := send(t, "GET", get, ""); code != http.StatusNotFound {
		t.Errorf("GET of nothing = %d %s, want 404", code, text)
	}
	if _, err := b.Stat(t.Context(), name); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Stat of nothing: %v", err)
	}
	// What Azure wants to be told with an upload does no harm to the others.
	if code, text := send(t, "PUT", put, "hello, world", "x-ms-blob-type", "BlockBlob"); code != http.StatusOK {
		t.Fatalf("PUT = %d %s, want 200", code, text)
	}
	if code, text := send(t, "GET", get, ""); code != http.StatusOK || text != "hello, world" {
		t.Errorf("GET = %d %q", code, text)
	}
	if code, text := send(t, "GET", get, "", "Range", "bytes=7-"); code != http.StatusPartialContent || text != "world" {
		t.Errorf("GET of a range = %d %q", code, text)
	}

	for what, signed := range forged(t, get) {
		if code, text := send(t, "GET", signed, ""); code < 400 || code >= 500 || strings.Contains(text, "hello") {
			t.Errorf("%s: %d %s, want it refused", what, code, text)
		}
	}
	for _, method := range []string{"PUT", "DELETE", "POST"} {
		if code, _ := send(t, method, get, "theirs"); code < 400 {
			t.Errorf("%s of a URL for GET = %d, want it refused", method, code)
		}
	}
	if code, _ := send(t, "GET", put, ""); code < 400 {
		t.Errorf("GET of a URL for PUT = %d, want it refused", code)
	}
	theirs := strings.Replace(sign("GET", strings.Replace(name, "/dev/", "/ops/", 1)), "/ops/", "/dev/", 1)
	if code, text := send(t, "GET", theirs, ""); code != http.StatusForbidden || strings.Contains(text, "hello") {
		t.Errorf("a URL of another stack opens with %d %s", code, text)
	}

	check(t, b.Write(t.Context(), "cache/acme/shop/dev/x.used", []byte("x")))
	var names []string
	for o, err := range b.List(t.Context(), "cache/acme/shop/") {
		check(t, err)
		names = append(names, o.Name)
		if o.Size == 0 || o.Modified.IsZero() {
			t.Errorf("List says %+v", o)
		}
	}
	if !slices.Equal(names, []string{name, "cache/acme/shop/dev/x.used"}) {
		t.Errorf("List = %q", names)
	}
	for range 2 {
		check(t, b.Delete(t.Context(), name))
	}
	if code, _ := send(t, "GET", get, ""); code != http.StatusNotFound {
		t.Errorf("GET of what was deleted = %d, want 404", code)
	}
	t.Run("curl", func(t *testing.T) {
		curl := testkit.Path(t, "curl")
		file := filepath.Join(t.TempDir(), "file")
		content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		check(t, os.WriteFile(file, content, 0o600))
		for _, args := range [][]string{{"--upload-file", file, put}, {"--output", file + ".back", get}} {
			if out, err := exec.CommandContext(t.Context(), curl, append([]string{"--fail", "--silent", "--show-error"}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("curl %q: %v: %s", args, err, out)
			}
		}
		if got, err := os.ReadFile(file + ".back"); err != nil || !bytes.Equal(got, content) {
			t.Errorf("curl got %d bytes, %v", len(got), err)
		}
	})
	t.Run("expired", func(t *testing.T) {
		signed, err := b.Sign(t.Context(), "GET", name, time.Second)
		check(t, err)
		check(t, b.Write(t.Context(), name, []byte("hello")))
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) { // polls a condition
			code, _ := send(t, "GET", signed, "")
			if code == http.StatusForbidden {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("a URL of one second opens with %d for half a minute", code)
			}
		}
	})
}

// forged returns what a thief may make of a URL, by what was changed.
func forged(t testing.TB, signed string) map[string]string {
	t.Helper()
	u, err := url.Parse(signed)
	check(t, err)
	out := map[string]string{}
	change := func(what string, f func(*url.URL, url.Values)) {
		other, query := *u, u.Query()
		f(&other, query)
		other.RawQuery = query.Encode()
		out[what] = other.String()
	}
	change("the key", func(u *url.URL, _ url.Values) { u.Path += "x" })
	change("the time", func(_ *url.URL, q url.Values) { q.Set("X-Amz-Expires", "86400") })
	change("the day", func(_ *url.URL, q url.Values) { q.Set("X-Amz-Date", "20300101T000000Z") })
	change("the signature", func(_ *url.URL, q url.Values) { q.Set("X-Amz-Signature", strings.Repeat("0", 64)) })
	change("no signature", func(_ *url.URL, q url.Values) { q.Del("X-Amz-Signature") })
	change("no query", func(_ *url.URL, q url.Values) { clear(q) })
	return out
}

// TestOtherClouds opens and signs without a network: their servers cannot be
// had here, so that is all that is tried of them.
func TestOtherClouds(t *testing.T) {
	t.Run("Google", func(t *testing.T) {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		check(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(private)
		check(t, err)
		account, err := json.Marshal(map[string]string{
			"type": "service_account", "client_email": "cache@example.iam.gserviceaccount.com", "private_key_id": "1",
			"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
			"token_uri":   "https://oauth2.example/token", "project_id": "example",
		})
		check(t, err)
		file := filepath.Join(t.TempDir(), "account.json")
		check(t, os.WriteFile(file, account, 0o600))
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
		u := signed(t, "gs://longshore", "PUT")
		if !strings.HasSuffix(u.Host, "googleapis.com") || !strings.HasSuffix(u.Path, name) || u.Query().Get("Signature") == "" {
			t.Errorf("the signed URL is %s", u)
		}
	})
	t.Run("Azure", func(t *testing.T) {
		t.Setenv("AZURE_STORAGE_ACCOUNT", "example")
		t.Setenv("AZURE_STORAGE_KEY", "bm90IGEgc2VjcmV0IGJ1dCBsb25nIGVub3VnaA==")
		u := signed(t, "azblob://longshore", "GET")
		if u.Host != "example.blob.core.windows.net" || !strings.HasSuffix(u.Path, name) || u.Query().Get("sig") == "" {
			t.Errorf("the signed URL is %s", u)
		}
	})
}

func signed(t *testing.T, bucket, method string) *url.URL {
	t.Helper()
	text, err := open(t, bucket).Sign(t.Context(), method, name, time.Minute)
	check(t, err)
	u, err := url.Parse(text)
	check(t, err)
	return u
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
	for bucket, want := range map[string]string{
		"s3://":              "want s3://bucket",
		"s3://user@bucket":   "neither a user nor a path",
		"s3://bucket/path":   "neither a user nor a path",
		"s3://bucket?walk=1": "walk",
		"file:///tmp":        `"file" is no scheme of a bucket`,
		"s3://[":             "not the URL of a bucket",
		"gs://bucket":        "set GOOGLE_APPLICATION_CREDENTIALS",
	} {
		_, err := cloud.Open(t.Context(), bucket)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s): %v, want %q", bucket, err, want)
		}
	}
}
