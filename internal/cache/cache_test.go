package cache_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a service with a cache and its bucket, in one server.
type site struct {
	*httptest.Server

	mu      sync.Mutex
	entries map[string][]byte
	newest  []string // keys
	dropped []string
	asked   int
	fault   func(w http.ResponseWriter, r *http.Request) (handled bool) // of the bucket
	down    bool                                                        // the service, not the bucket
	chunked bool                                                        // a PUT needs no length
}

// secret is in every URL, and in no outcome.
const secret = "hunter2"

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{entries: map[string][]byte{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/stacks/acme/shop/dev/deployments/cache/url", s.url)
	mux.HandleFunc("DELETE /api/stacks/acme/shop/dev/deployments/cache/entries/{key}", s.drop)
	mux.HandleFunc("/bucket/{key}", s.bucket)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *site) url(w http.ResponseWriter, r *http.Request) {
	var ask struct{ Method, Key, Prefix string }
	if json.NewDecoder(r.Body).Decode(&ask) != nil || r.Header.Get("Authorization") != "token lsj-token" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.down {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	key := ask.Key
	if _, ok := s.entries[key]; !ok && ask.Prefix != "" {
		for _, k := range s.newest {
			if _, there := s.entries[k]; there && strings.HasPrefix(k, ask.Prefix) {
				key = k
			}
		}
	}
	fmt.Fprintf(w, `{"url":"%s/bucket/%s?method=%s&signature=%s","key":%q,"size":%d,"chunked":%t}`, s.URL, key, ask.Method, secret, key, len(s.entries[key]), s.chunked)
}

func (s *site) drop(_ http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = append(s.dropped, r.PathValue("key"))
	delete(s.entries, r.PathValue("key"))
}

func (s *site) bucket(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	content, there := s.entries[r.PathValue("key")]
	fault := s.fault
	s.mu.Unlock()
	switch {
	case r.URL.Query().Get("method") != r.Method || r.URL.Query().Get("signature") != secret:
		w.WriteHeader(http.StatusForbidden)
	case fault != nil && fault(w, r):
	case r.Method == http.MethodPut && r.ContentLength < 0 && !s.chunked:
		w.WriteHeader(http.StatusLengthRequired)
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.store(r.PathValue("key"), body)
	case !there:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("ETag", fmt.Sprintf(`"%d-%x"`, len(content), content[max(0, len(content)-8):]))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

func (s *site) store(key string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[key] = content
	s.newest = append(s.newest, key)
}

func (s *site) stored(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[key]
}

func (s *site) cache(t *testing.T, change ...func(*cache.Options)) *cache.Cache {
	t.Helper()
	service, err := client.New(client.Options{BaseURL: s.URL, RetryWait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.CloseIdle)
	o := cache.Options{Service: cache.NewHTTP(service.Stack("acme", "shop", "dev", "lsj-token")), Stall: 10 * time.Second, Retry: time.Millisecond, Dir: t.TempDir()}
	for _, c := range change {
		c(&o)
	}
	c, err := cache.New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.SetSegment(segment)
	t.Cleanup(c.Close)
	return c
}

// segment is the size of a range in these tests.
const segment = 64 << 10

// breaks sets what goes wrong from now on.
func (s *site) breaks(fault func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// write puts a file below dir.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// files are those below dir with their content; folders end with a slash.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			all[name+"/"] = ""
			return nil
		}
		content, err := os.ReadFile(path)
		all[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const blob = 500_000

func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(b)
	return string(b)
}

// workspace is a directory with what an install made.
func workspace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "node_modules/a/index.js", "a")
	write(t, dir, "node_modules/b/blob", noise(blob)) // several ranges
	write(t, dir, "npm/_cacache/x", "x")
	return dir
}

func recipe(dir string) cache.Recipe {
	return cache.Recipe{Manager: "npm", Key: "npm-linux-amd64-2", Prefix: "npm-linux-amd64-", Folders: []cache.Folder{
		{Name: "node_modules", Path: filepath.Join(dir, "node_modules")},
		{Name: "npm-cache", Path: filepath.Join(dir, "npm"), Merge: true},
	}}
}

// is checks a result and its one line.
func is(t *testing.T, o cache.Outcome, want cache.Result, says string) {
	t.Helper()
	if o.Result != want || !strings.Contains(o.Reason, says) {
		t.Errorf("outcome = %s, want %s with %q", o, want, says)
	}
	if line := o.String(); strings.Contains(line, "\n") || strings.Contains(line, secret) || strings.Contains(line, "lsj-token") || !strings.HasPrefix(line, string(want)) {
		t.Errorf("line = %q", line)
	}
}

func TestSaveAndRestore(t *testing.T) {
	t.Parallel()
	s, from, to := newSite(t), workspace(t), filepath.Join(t.TempDir(), "deep", "below")
	c := s.cache(t)
	restored := c.Restore(t.Context(), recipe(from))
	is(t, restored, cache.Miss, "there is no entry with this key, and none that begins with npm-linux-amd64-")
	saved := c.Save(t.Context(), recipe(from), restored)
	is(t, saved, cache.Saved, "")
	if saved.Size != int64(len(s.stored("npm-linux-amd64-2"))) || saved.Size < blob || saved.Key != "npm-linux-amd64-2" || saved.Took <= 0 {
		t.Errorf("saved: %+v", saved)
	}
	hit := c.Restore(t.Context(), recipe(to))
	is(t, hit, cache.Hit, "")
	if hit.Size != saved.Size || hit.Key != saved.Key || hit.Manager != "npm" {
		t.Errorf("restored: %+v", hit)
	}
	if diff := gocmp.Diff(files(t, from), files(t, to)); diff != "" {
		t.Errorf("restored, it differs (-want +got):\n%s", diff)
	}
	asked := s.asked
	is(t, c.Save(t.Context(), recipe(to), hit), cache.Skipped, "restored from this entry")
	if s.asked != asked {
		t.Error("a save of what was restored asked for a URL")
	}
}

// TestChunked: where a PUT needs no length, nothing is written to the job's disk;
// when that does not succeed, it is.
func TestChunked(t *testing.T) {
	t.Parallel()
	s, from, to := newSite(t), workspace(t), t.TempDir()
	s.chunked = true
	nowhere := func(o *cache.Options) { o.Dir = "/nowhere" }
	saved := s.cache(t, nowhere).Save(t.Context(), recipe(from), cache.Outcome{})
	is(t, saved, cache.Saved, "")
	if saved.Size != int64(len(s.stored("npm-linux-amd64-2"))) {
		t.Errorf("saved: %+v", saved)
	}
	is(t, s.cache(t).Restore(t.Context(), recipe(to)), cache.Hit, "")
	if diff := gocmp.Diff(files(t, from), files(t, to)); diff != "" {
		t.Error(diff)
	}
	is(t, s.cache(t, func(o *cache.Options) { o.MaxSize = 200 << 10 }).Save(t.Context(), recipe(from), cache.Outcome{}), cache.Skipped, "more to keep than")
	is(t, s.cache(t).Save(t.Context(), recipe(t.TempDir()), cache.Outcome{}), cache.Skipped, "nothing to keep")
	if got := int64(len(s.stored("npm-linux-amd64-2"))); got != saved.Size {
		t.Errorf("afterwards %d bytes are stored in place of %d", got, saved.Size)
	}
	s.breaks(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.ContentLength < 0 {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	is(t, s.cache(t, nowhere).Save(t.Context(), recipe(from), cache.Outcome{}), cache.Skipped, "make a file for the archive")
	is(t, s.cache(t).Save(t.Context(), recipe(from), cache.Outcome{}), cache.Saved, "")
}

func TestPartialHit(t *testing.T) {
	t.Parallel()
	s, from := newSite(t), workspace(t)
	c := s.cache(t)
	old := recipe(from)
	old.Key = "npm-linux-amd64-1"
	is(t, c.Save(t.Context(), old, cache.Outcome{}), cache.Saved, "")
	to := t.TempDir()
	o := c.Restore(t.Context(), recipe(to))
	is(t, o, cache.PartialHit, "there is no entry npm-linux-amd64-2")
	if o.Key != "npm-linux-amd64-1" || o.Wanted != "npm-linux-amd64-2" {
		t.Errorf("outcome: %+v", o)
	}
	if diff := gocmp.Diff(files(t, from), files(t, to)); diff != "" {
		t.Error(diff)
	}
	is(t, c.Save(t.Context(), recipe(to), o), cache.Saved, "")
	if s.stored("npm-linux-amd64-2") == nil {
		t.Error("nothing was saved under the new key")
	}
}

func TestWhatIsThere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.cache(t)
	is(t, c.Save(t.Context(), recipe(workspace(t)), cache.Outcome{}), cache.Saved, "")
	to := t.TempDir()
	write(t, to, "node_modules/a/old", "old")
	write(t, to, "node_modules/c", "old")
	write(t, to, "npm/_cacache/x", "mine")
	write(t, to, "npm/_cacache/y", "mine, too")
	is(t, c.Restore(t.Context(), recipe(to)), cache.Hit, "")
	got := files(t, to)
	delete(got, "node_modules/b/blob")
	want := map[string]string{
		"node_modules/": "", "node_modules/a/": "", "node_modules/a/index.js": "a", "node_modules/b/": "",
		"npm/": "", "npm/_cacache/": "", "npm/_cacache/x": "mine", "npm/_cacache/y": "mine, too",
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("one makes way, the other is merged (-want +got):\n%s", diff)
	}
}

// TestFoldersThatForbidWriting: those of Go's module cache do. It is a test for
// those who are not root, too.
func TestFoldersThatForbidWriting(t *testing.T) {
	t.Parallel()
	s, from := newSite(t), t.TempDir()
	lock := func(dir string, mode fs.FileMode) {
		for _, name := range []string{"mod/a@v1/deep", "mod/a@v1", "mod/b@v2"} {
			if err := os.Chmod(filepath.Join(dir, name), mode); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
	}
	locked := func(dir string) {
		t.Cleanup(func() {
			for _, mode := range []fs.FileMode{0o755, 0o755} { // a folder hides what is in it
				lock(dir, mode)
			}
		})
		lock(dir, 0o555)
	}
	write(t, from, "mod/a@v1/deep/x", "x")
	write(t, from, "mod/a@v1/y", "y")
	write(t, from, "mod/b@v2/z", "z")
	locked(from)
	r := func(dir string) cache.Recipe {
		return cache.Recipe{Manager: "go", Key: "go-1", Folders: []cache.Folder{{Name: "mod", Path: filepath.Join(dir, "mod"), Merge: true}}}
	}
	c := s.cache(t)
	is(t, c.Save(t.Context(), r(from), cache.Outcome{}), cache.Saved, "")
	for name, before := range map[string][]string{"nothing is there": nil, "a folder is there": {"mod/a@v1/y"}, "another is": {"mod/c@v3/w"}} {
		to := t.TempDir()
		for _, file := range before {
			write(t, to, file, "y")
		}
		lock(to, 0o555)
		is(t, c.Restore(t.Context(), r(to)), cache.Hit, "")
		got := files(t, to)
		delete(got, "mod/c@v3/w")
		delete(got, "mod/c@v3/")
		if diff := gocmp.Diff(files(t, from), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for _, folder := range []string{"mod/a@v1", "mod/b@v2"} {
			if info, err := os.Stat(filepath.Join(to, folder)); err != nil || info.Mode().Perm() != 0o555 {
				t.Errorf("%s: %s: %v, %v", name, folder, info, err)
			}
		}
		locked(to)
	}
}

// TestBadEntries: an entry that cannot be used is dropped, and the folders stay
// as they are.
func TestBadEntries(t *testing.T) {
	t.Parallel()
	good := newSite(t)
	is(t, good.cache(t).Save(t.Context(), recipe(workspace(t)), cache.Outcome{}), cache.Saved, "")
	content := good.stored("npm-linux-amd64-2")
	flipped := bytes.Clone(content)
	flipped[len(flipped)/2] ^= 1
	other := newSite(t)
	elsewhere := recipe(workspace(t))
	elsewhere.Key = "npm-linux-amd64-3"
	is(t, other.cache(t).Save(t.Context(), elsewhere, cache.Outcome{}), cache.Saved, "")
	for name, tc := range map[string]struct {
		content []byte
		says    string
		max     int64
	}{
		"cut off":           {content[:len(content)/2], "ends too early", 0},
		"one byte short":    {content[:len(content)-1], "ends too early", 0},
		"a byte is another": {flipped, "damaged", 0},
		"foreign":           {[]byte("PK\x03\x04 something else, and longer than what is looked at"), "something else than an archive", 0},
		"of another key":    {other.stored("npm-linux-amd64-3"), "belongs to the key", 0},
		"too large":         {content, "larger than 200.0 KiB", 200 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := newSite(t), t.TempDir()
			write(t, to, "node_modules/mine", "x")
			before := files(t, to)
			s.store("npm-linux-amd64-2", tc.content)
			c := s.cache(t, func(o *cache.Options) { o.MaxSize = tc.max })
			is(t, c.Restore(t.Context(), recipe(to)), cache.Miss, tc.says)
			if diff := gocmp.Diff([]string{"npm-linux-amd64-2"}, s.dropped); diff != "" {
				t.Errorf("dropped: %s", diff)
			}
			if diff := gocmp.Diff(before, files(t, to)); diff != "" {
				t.Errorf("afterwards (-before +after):\n%s", diff)
			}
		})
	}
}

// TestTroubles: what is wrong with the way is no reason to drop the entry.
func TestTroubles(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault func(w http.ResponseWriter, r *http.Request) bool
		down  bool
		stall time.Duration
		says  string
	}{
		"a service that refuses": {down: true, says: "the cache gives no URL"},
		"a storage that is busy": {fault: func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}, says: "503"},
		"a storage that hangs": {fault: func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, stall: 50 * time.Millisecond, says: "nothing moved"},
		"a storage that cuts": {fault: func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "1000000")
			fmt.Fprint(w, "\x5a\x2a\x4d\x18")
			return true
		}, says: "broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := newSite(t), t.TempDir()
			is(t, s.cache(t).Save(t.Context(), recipe(workspace(t)), cache.Outcome{}), cache.Saved, "")
			s.breaks(tc.fault)
			s.down = tc.down
			c := s.cache(t, func(o *cache.Options) { o.Stall = cmp.Or(tc.stall, o.Stall) })
			is(t, c.Restore(t.Context(), recipe(to)), cache.Miss, tc.says)
			if len(s.dropped) > 0 || len(files(t, to)) > 0 {
				t.Errorf("dropped %v, left %v", s.dropped, files(t, to))
			}
		})
	}
}

// TestReplacedMeanwhile: the newer entry is restored, whole.
func TestReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	s, first, second := newSite(t), workspace(t), workspace(t)
	write(t, second, "node_modules/b/blob", noise(blob-10)+"newer")
	c := s.cache(t)
	is(t, c.Save(t.Context(), recipe(second), cache.Outcome{}), cache.Saved, "")
	newer := s.stored("npm-linux-amd64-2")
	is(t, c.Save(t.Context(), recipe(first), cache.Outcome{}), cache.Saved, "")
	var n int
	s.breaks(func(_ http.ResponseWriter, _ *http.Request) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n++; n == 2 {
			s.entries["npm-linux-amd64-2"] = newer
		}
		return false
	})
	to := t.TempDir()
	is(t, c.Restore(t.Context(), recipe(to)), cache.Hit, "")
	if diff := gocmp.Diff(files(t, second), files(t, to)); diff != "" {
		t.Error("what was restored is not the newer entry")
	}
}

func TestSaveFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(dir string, r *cache.Recipe, o *cache.Options)
		fault  func(w http.ResponseWriter, r *http.Request) bool
		down   bool
		says   string
	}{
		"a service that refuses": {down: true, says: "the cache gives no URL"},
		"a storage that is full": {fault: func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusInsufficientStorage)
			return true
		}, says: "507"},
		"too much for it": {fault: func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}, says: "too much for the storage"},
		"too much": {change: func(_ string, _ *cache.Recipe, o *cache.Options) { o.MaxSize = 200 << 10 }, says: "more to keep than 200.0 KiB"},
		"nothing": {change: func(dir string, r *cache.Recipe, _ *cache.Options) {
			r.Folders[0].Path, r.Folders[1].Path = filepath.Join(dir, "none"), filepath.Join(dir, "neither")
		}, says: "nothing to keep"},
		"no room for the archive": {change: func(dir string, _ *cache.Recipe, o *cache.Options) { o.Dir = filepath.Join(dir, "gone") }, says: "make a file for the archive"},
		"a name of its own kind":  {change: func(dir string, _ *cache.Recipe, _ *cache.Options) { write(t, dir, `node_modules/a\b`, "x") }, says: "cannot be kept"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, dir := newSite(t), workspace(t)
			s.breaks(tc.fault)
			s.down = tc.down
			r := recipe(dir)
			c := s.cache(t, func(o *cache.Options) {
				if tc.change != nil {
					tc.change(dir, &r, o)
				}
			})
			is(t, c.Save(t.Context(), r, cache.Outcome{}), cache.Skipped, tc.says)
			if len(s.entries) > 0 {
				t.Error("something was stored")
			}
		})
	}
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	s, dir := newSite(t), workspace(t)
	spool := t.TempDir()
	c := s.cache(t, func(o *cache.Options) { o.Dir = spool })
	is(t, c.Save(t.Context(), recipe(dir), cache.Outcome{}), cache.Saved, "")
	if left := files(t, spool); len(left) > 0 {
		t.Errorf("a save left %v", left)
	}
	for name, fault := range map[string]func(cancel func()) func(http.ResponseWriter, *http.Request) bool{
		"at once": func(cancel func()) func(http.ResponseWriter, *http.Request) bool {
			cancel()
			return nil
		},
		"between two ranges": func(cancel func()) func(http.ResponseWriter, *http.Request) bool {
			return func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") {
					return false
				}
				cancel()
				<-r.Context().Done()
				return true
			}
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s.breaks(fault(cancel))
		to := t.TempDir()
		is(t, c.Restore(ctx, recipe(to)), cache.Miss, "it was cancelled")
		if left := files(t, to); len(left) > 0 {
			t.Errorf("%s: a restore left %v", name, left)
		}
		cancel()
	}
	if len(s.dropped) > 0 {
		t.Errorf("dropped %v", s.dropped)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.store("npm-linux-amd64-2", make([]byte, 100))
	s.breaks(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	c := s.cache(t, func(o *cache.Options) { o.Stall, o.Timeout = time.Minute, 50*time.Millisecond })
	is(t, c.Restore(t.Context(), recipe(t.TempDir())), cache.Miss, "not done after 50ms")
}

func TestNotTried(t *testing.T) {
	t.Parallel()
	off, err := cache.New(cache.Options{Off: "cache.backend is off"})
	if err != nil {
		t.Fatal(err)
	}
	r := recipe("/nowhere")
	is(t, off.Restore(t.Context(), r), cache.Off, "cache.backend is off")
	is(t, off.Save(t.Context(), r, cache.Outcome{}), cache.Off, "cache.backend is off")
	on := newSite(t).cache(t)
	for name, change := range map[string]func(r *cache.Recipe){
		"no key":                  func(r *cache.Recipe) { r.Key = "" },
		"a key with a slash":      func(r *cache.Recipe) { r.Key = "a/b" },
		"a hidden key":            func(r *cache.Recipe) { r.Key = ".a" },
		"a long key":              func(r *cache.Recipe) { r.Key = strings.Repeat("k", 257) },
		"a prefix with a slash":   func(r *cache.Recipe) { r.Prefix = "../" },
		"no folders":              func(r *cache.Recipe) { r.Folders = nil },
		"a folder without a name": func(r *cache.Recipe) { r.Folders[0].Name = "" },
		"a name with a slash":     func(r *cache.Recipe) { r.Folders[0].Name = "a/b" },
		"one name twice":          func(r *cache.Recipe) { r.Folders[1].Name = r.Folders[0].Name },
		"a relative path":         func(r *cache.Recipe) { r.Folders[0].Path = "node_modules" },
		"the root":                func(r *cache.Recipe) { r.Folders[0].Path = "/" },
		"a folder in a folder":    func(r *cache.Recipe) { r.Folders[1].Path = r.Folders[0].Path + "/x" },
	} {
		r := recipe("/nowhere")
		change(&r)
		if o := on.Restore(t.Context(), r); o.Result != cache.Skipped || o.Reason == "" {
			t.Errorf("%s: %s", name, o)
		}
		if o := on.Save(t.Context(), r, cache.Outcome{}); o.Result != cache.Skipped || o.Reason == "" {
			t.Errorf("%s: %s", name, o)
		}
	}
	is(t, r.Skip("destroy removes the stack"), cache.Skipped, "destroy removes the stack")
}

func TestLinksInPlaceOfFolders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.cache(t)
	is(t, c.Save(t.Context(), recipe(workspace(t)), cache.Outcome{}), cache.Saved, "")
	to, elsewhere := t.TempDir(), t.TempDir()
	write(t, elsewhere, "mine", "x")
	if err := os.Symlink(elsewhere, filepath.Join(to, "node_modules")); err != nil {
		t.Fatal(err)
	}
	is(t, c.Restore(t.Context(), recipe(to)), cache.Miss, "is a symbolic link")
	if diff := gocmp.Diff(map[string]string{"mine": "x"}, files(t, elsewhere)); diff != "" {
		t.Error(diff)
	}
}

func TestOutcomeLines(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]cache.Outcome{
		"hit: npm-1, 12.5 MiB, 1.2 s":                                 {Result: cache.Hit, Wanted: "npm-1", Key: "npm-1", Size: 12<<20 + 512<<10, Took: 1234 * time.Millisecond},
		"partial hit: npm-1, 2.0 KiB, 0.1 s: there is no entry npm-2": {Result: cache.PartialHit, Wanted: "npm-2", Key: "npm-1", Size: 2048, Took: 100 * time.Millisecond, Reason: "there is no entry npm-2"},
		"miss: npm-2, 0.1 s: there is no entry with this key":         {Result: cache.Miss, Wanted: "npm-2", Took: 100 * time.Millisecond, Reason: "there is no entry with this key"},
		"skipped: npm-2: it was restored from this entry":             {Result: cache.Skipped, Wanted: "npm-2", Reason: "it was restored from this entry"},
		"off: cache.backend is off":                                   {Result: cache.Off, Reason: "cache.backend is off"},
		"saved: npm-2, 4.0 GiB, 60.0 s":                               {Result: cache.Saved, Wanted: "npm-2", Key: "npm-2", Size: 4 << 30, Took: time.Minute},
		"miss: npm-1, 9 bytes, 0.1 s: it is damaged; it was dropped":  {Result: cache.Miss, Wanted: "npm-2", Key: "npm-1", Size: 9, Took: 100 * time.Millisecond, Reason: "it is damaged; it was dropped"},
	} {
		if got := o.String(); got != want {
			t.Errorf("line = %q, want %q", got, want)
		}
		var again cache.Outcome
		text, err := json.Marshal(o)
		if err = errors.Join(err, json.Unmarshal(text, &again)); err != nil || again != o {
			t.Errorf("kept as %s it becomes %+v (%v)", text, again, err)
		}
	}
}
