package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = bytes.Repeat([]byte("k"), blob.MinKeyBytes)

const name = "cache/acme/shop/dev/npm-linux.tar.zst"

// place is a folder and what serves it.
type place struct {
	*blob.Folder
	dir, base string
	observed  chan int64
}

func open(t testing.TB, maxBytes int64) *place {
	t.Helper()
	p := &place{dir: t.TempDir(), observed: make(chan int64, 100)}
	var err error
	p.Folder, err = blob.OpenFolder("file://"+p.dir, blob.FolderOptions{
		Key: key, MaxBytes: maxBytes,
		Observe: func(_, _ string, n int64, _ time.Duration) { p.observed <- n },
	})
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	mux := http.NewServeMux()
	mux.Handle(blob.Path, p.Handler())
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	p.base = web.URL
	return p
}

func (p *place) sign(t testing.TB, method, name string) string {
	t.Helper()
	signed, err := p.Sign(t.Context(), method, name, 15*time.Minute)
	check(t, err)
	return p.base + signed
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

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFolder(t *testing.T) {
	t.Parallel()
	p := open(t, 0)
	get := p.sign(t, "GET", name)
	if code, _ := send(t, "GET", get, ""); code != http.StatusNotFound {
		t.Errorf("GET of nothing = %d, want 404", code)
	}
	if code, text := send(t, "PUT", p.sign(t, "PUT", name), "hello, world"); code != http.StatusOK {
		t.Fatalf("PUT = %d %s, want 200", code, text)
	}
	for _, tc := range []struct {
		header []string
		code   int
		want   string
	}{
		{nil, 200, "hello, world"},
		{[]string{"Range", "bytes=7-"}, 206, "world"},
		{[]string{"Range", "bytes=0-4"}, 206, "hello"},
		{[]string{"Range", "bytes=100-"}, 416, ""},
	} {
		if code, text := send(t, "GET", get, "", tc.header...); code != tc.code || tc.want != "" && text != tc.want {
			t.Errorf("GET with %v = %d %q, want %d %q", tc.header, code, text, tc.code, tc.want)
		}
	}
	if n := <-p.observed; n != int64(len("hello, world")) {
		t.Errorf("observed %d bytes of the upload", n)
	}
	o, err := p.Stat(t.Context(), name)
	check(t, err)
	if o.Size != 12 || o.Modified.IsZero() {
		t.Errorf("Stat = %+v", o)
	}
	check(t, p.Write(t.Context(), "cache/acme/shop/dev/x.used", nil))
	if got := list(t, p.Folder, "cache/acme/"); !slices.Equal(got, []string{name, "cache/acme/shop/dev/x.used"}) {
		t.Errorf("List = %q", got)
	}
	for range 2 {
		check(t, p.Delete(t.Context(), name))
	}
	if _, err := p.Stat(t.Context(), name); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Stat of nothing: %v", err)
	}
	info, err := os.Stat(filepath.Join(p.dir, "cache"))
	check(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is of mode %v, want it for its owner alone", info.Mode())
	}
}

func list(t testing.TB, b blob.Bucket, prefix string) (names []string) {
	t.Helper()
	for o, err := range b.List(t.Context(), prefix) {
		check(t, err)
		names = append(names, o.Name)
	}
	return names
}

// forged returns what a thief may make of a URL, by what was changed.
func forged(t testing.TB, signed string) map[string]string {
	t.Helper()
	u, err := url.Parse(signed)
	check(t, err)
	out := map[string]string{}
	for parameter, values := range u.Query() {
		for what, value := range map[string]string{"changed": values[0] + "1", "emptied": "", "dropped": ""} {
			query := u.Query()
			query.Set(parameter, value)
			if what == "dropped" {
				query.Del(parameter)
			}
			other := *u
			other.RawQuery = query.Encode()
			out[parameter+" "+what] = other.String()
		}
		other := *u
		other.RawQuery = parameter + "=1&" + u.RawQuery
		out[parameter+" given twice"] = other.String()
	}
	return out
}

func TestForgedFolderURLs(t *testing.T) {
	t.Parallel()
	p := open(t, 0)
	if code, _ := send(t, "PUT", p.sign(t, "PUT", name), "mine"); code != http.StatusOK {
		t.Fatal(code)
	}
	for what, forgery := range forged(t, p.sign(t, "GET", name)) {
		if code, text := send(t, "GET", forgery, ""); code != http.StatusForbidden || strings.Contains(text, "mine") {
			t.Errorf("%s: %d %s, want 403", what, code, text)
		}
	}
	// Another stack's object, under the signature of one's own.
	theirs := strings.Replace(p.sign(t, "GET", strings.Replace(name, "dev", "ops", 1)), "ops", "dev", 1)
	if code, _ := send(t, "GET", theirs, ""); code != http.StatusForbidden {
		t.Errorf("a URL of another stack opens with %d, want 403", code)
	}
	for _, method := range []string{"GET", "PUT"} {
		signed := p.sign(t, method, name)
		for _, other := range []string{"GET", "PUT", "HEAD", "POST", "DELETE"} {
			if other == method {
				continue
			}
			if code, _ := send(t, other, signed, "theirs"); code != http.StatusForbidden {
				t.Errorf("%s of a URL for %s = %d, want 403", other, method, code)
			}
		}
	}
	other, err := blob.OpenFolder("file://"+p.dir, blob.FolderOptions{Key: bytes.Repeat([]byte("x"), 32)})
	check(t, err)
	defer other.Close()
	foreign, err := other.Sign(t.Context(), "GET", name, time.Minute)
	check(t, err)
	if code, _ := send(t, "GET", p.base+foreign, ""); code != http.StatusForbidden {
		t.Errorf("a URL signed by another key = %d, want 403", code)
	}
}

func TestFolderURLsExpire(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := blob.OpenFolder("file://"+dir, blob.FolderOptions{Key: key})
		check(t, err)
		defer b.Close()
		check(t, b.Write(t.Context(), name, []byte("hello")))
		signed, err := b.Sign(t.Context(), "GET", name, 15*time.Minute)
		check(t, err)
		get := func() int {
			w := httptest.NewRecorder()
			b.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, signed, nil))
			return w.Code
		}
		time.Sleep(15 * time.Minute)
		if code := get(); code != http.StatusOK {
			t.Errorf("after 15 minutes: %d, want 200", code)
		}
		time.Sleep(2 * time.Second)
		if code := get(); code != http.StatusForbidden {
			t.Errorf("after its time: %d, want 403", code)
		}
	})
}

func TestFolderUploads(t *testing.T) {
	t.Parallel()
	p := open(t, 10)
	put := p.sign(t, "PUT", name)
	if code, _ := send(t, "PUT", put, "0123456789"); code != http.StatusOK {
		t.Errorf("an upload of the limit = %d, want 200", code)
	}
	if code, text := send(t, "PUT", put, "0123456789a"); code != http.StatusRequestEntityTooLarge || !strings.Contains(text, "10 bytes") {
		t.Errorf("an upload above the limit = %d %s, want 413 that names it", code, text)
	}
	chunked := func(body io.Reader) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, put, io.MultiReader(body)) // of a length that is not known
		check(t, err)
		resp, err := http.DefaultClient.Do(req)
		if err != nil { // the server has cut it
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := chunked(strings.NewReader(strings.Repeat("x", 1<<20))); code != http.StatusRequestEntityTooLarge && code != 0 {
		t.Errorf("an upload that turns out to be too large = %d, want 413", code)
	}
	if code := chunked(io.MultiReader(strings.NewReader("0123"), broken{})); code != 0 {
		t.Errorf("an upload that breaks = %d, want no answer", code)
	}
	http.DefaultClient.CloseIdleConnections()
	text, err := os.ReadFile(filepath.Join(p.dir, name))
	check(t, err)
	if string(text) != "0123456789" {
		t.Errorf("the object is %q after uploads that failed, want the one that did not", text)
	}

	stale := filepath.Join(p.dir, ".uploads", "1")
	check(t, os.WriteFile(stale, nil, 0o600))
	check(t, os.Chtimes(stale, time.Time{}, time.Now().Add(-time.Hour)))
	check(t, p.Tidy(time.Now().Add(-30*time.Minute)))
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an abandoned upload is still there: %v", err)
	}
	if got := list(t, p.Folder, "cache/"); !slices.Equal(got, []string{name}) {
		t.Errorf("List = %q, want no upload in it", got)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

// TestFolderIsNotLeft: neither a name nor a link leads out of the folder.
func TestFolderIsNotLeft(t *testing.T) {
	t.Parallel()
	p := open(t, 0)
	for _, bad := range []string{"", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a/./b", "a b", "a\x00"} {
		if _, err := p.Sign(t.Context(), "GET", bad, time.Minute); err == nil {
			t.Errorf("Sign(%q) gave a URL", bad)
		}
		if err := p.Write(t.Context(), bad, nil); err == nil {
			t.Errorf("Write(%q) went well", bad)
		}
	}
	outside := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(outside, []byte("secret"), 0o600))
	check(t, os.Symlink(outside, filepath.Join(p.dir, "link")))
	if code, text := send(t, "GET", p.sign(t, "GET", "link"), ""); code == http.StatusOK || strings.Contains(text, "secret\"") {
		t.Errorf("GET of a link out of the folder = %d %s", code, text)
	}
	check(t, os.Mkdir(filepath.Join(p.dir, "directory"), 0o700))
	if code, _ := send(t, "GET", p.sign(t, "GET", "directory"), ""); code != http.StatusNotFound {
		t.Errorf("GET of a directory = %d, want 404", code)
	}
}

// TestFolderConcurrently: the last complete upload of an object wins, and nobody
// reads half of one.
func TestFolderConcurrently(t *testing.T) {
	t.Parallel()
	p := open(t, 0)
	put, get := p.sign(t, "PUT", name), p.sign(t, "GET", name)
	send(t, "PUT", put, strings.Repeat("0", 1<<20))
	done := make(chan struct{})
	for n := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 5 {
				send(t, "PUT", put, strings.Repeat(string(rune('0'+n)), 1<<20))
				if code, text := send(t, "GET", get, ""); code != http.StatusOK || text != strings.Repeat(text[:1], 1<<20) {
					t.Errorf("GET = %d with %d bytes of several uploads", code, len(text))
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	for bucket, want := range map[string]string{
		"file://relative/path": "an absolute path",
		"file:relative":        "an absolute path",
		"file:///tmp?x=y":      "without options",
		"file://" + file:       "make the folder",
		"ftp://host":           "want file://",
		"/var/cache":           "want file://",
		"http://[":             "want file://",
	} {
		_, err := blob.OpenFolder(bucket, blob.FolderOptions{Key: key})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s): %v, want %q", bucket, err, want)
		}
	}
	if _, err := blob.OpenFolder("file://"+t.TempDir(), blob.FolderOptions{Key: []byte("short")}); err == nil {
		t.Error("a folder opens with a short key")
	}
}

// TestFolderWithCurl needs nothing but curl: a URL is all there is to it.
func TestFolderWithCurl(t *testing.T) {
	t.Parallel()
	curl := testkit.Path(t, "curl")
	p := open(t, 0)
	file := filepath.Join(t.TempDir(), "file")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	check(t, os.WriteFile(file, content, 0o600))
	run(t, curl, "--fail", "--silent", "--upload-file", file, p.sign(t, "PUT", name))
	get := p.sign(t, "GET", name)
	if got := run(t, curl, "--fail", "--silent", get); !bytes.Equal(got, content) {
		t.Errorf("curl got %d bytes, want %d", len(got), len(content))
	}
	if got := run(t, curl, "--fail", "--silent", "--range", "16-31", get); !bytes.Equal(got, content[16:32]) {
		t.Errorf("curl got %q for a range", got)
	}
}

func run(t testing.TB, program string, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", program, args, err)
	}
	return out
}
