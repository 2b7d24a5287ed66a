package cachestore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/cachestore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	dev = cachestore.Owner{Organization: "acme", Project: "shop", Stack: "dev"}
	ops = cachestore.Owner{Organization: "acme", Project: "shop", Stack: "ops"}
)

// memory is a bucket whose times are those of the bubble.
type memory struct{ objects *sync.Map } // of blob.Object by name

func (memory) Sign(_ context.Context, method, name string, life time.Duration) (string, error) {
	return fmt.Sprintf("%s %s %s", method, name, life), nil
}

func (b memory) Stat(_ context.Context, name string) (blob.Object, error) {
	o, ok := b.objects.Load(name)
	if !ok {
		return blob.Object{}, fmt.Errorf("look: %w", blob.ErrNotFound)
	}
	return o.(blob.Object), nil
}

func (b memory) List(_ context.Context, prefix string) iter.Seq2[blob.Object, error] {
	var found []blob.Object
	b.objects.Range(func(name, o any) bool {
		if strings.HasPrefix(name.(string), prefix) {
			found = append(found, o.(blob.Object))
		}
		return true
	})
	slices.SortFunc(found, func(a, b blob.Object) int { return strings.Compare(a.Name, b.Name) })
	return func(yield func(blob.Object, error) bool) {
		for _, o := range found {
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (b memory) Write(_ context.Context, name string, content []byte) error {
	b.objects.Store(name, blob.Object{Name: name, Size: int64(len(content)), Modified: time.Now()})
	return nil
}

func (b memory) Delete(_ context.Context, name string) error {
	b.objects.Delete(name)
	return nil
}

func (memory) Tidy(time.Time) error { return nil }

// within runs f in a bubble with a bucket.
func within(t *testing.T, f func(t *testing.T, b memory)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, memory{new(sync.Map)}) })
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// save makes an entry in the way that a job does.
func save(t testing.TB, s *cachestore.Store, o cachestore.Owner, key string, size int) {
	t.Helper()
	link, err := s.Put(t.Context(), o, key)
	check(t, err)
	if link.Key != key {
		t.Errorf("Put(%s) links to %s", key, link.Key)
	}
	check(t, s.Bucket.Write(t.Context(), nameIn(t, link, "PUT"), make([]byte, size)))
}

func nameIn(t testing.TB, link cachestore.Link, method string) string {
	t.Helper()
	parts := strings.Fields(link.URL)
	if len(parts) != 3 || parts[0] != method || parts[2] != "15m0s" {
		t.Fatalf("the URL is %q, want one for %s and 15 minutes", link.URL, method)
	}
	return parts[1]
}

// get returns the key of the entry that is found, "" when there is none.
func get(t testing.TB, s *cachestore.Store, o cachestore.Owner, key, prefix string) string {
	t.Helper()
	link, err := s.Get(t.Context(), o, key, prefix)
	check(t, err)
	name := nameIn(t, link, "GET")
	object, err := s.Bucket.Stat(t.Context(), name)
	if err != nil {
		if link.Key != key || link.Size != 0 {
			t.Errorf("Get(%s) = %+v and there is no such entry", key, link)
		}
		return ""
	}
	if !strings.HasSuffix(name, "/"+link.Key+".tar.zst") || object.Size != link.Size {
		t.Errorf("Get(%s) = %+v, which is %+v", key, link, object)
	}
	return link.Key
}

func names(t testing.TB, b memory) (out []string) {
	t.Helper()
	for o, err := range b.List(t.Context(), "") {
		check(t, err)
		out = append(out, o.Name)
	}
	return out
}

func TestGet(t *testing.T) {
	within(t, func(t *testing.T, b memory) {
		reg := prometheus.NewRegistry()
		s := cachestore.New(cachestore.Options{Bucket: b, Registerer: reg, Namespace: "test", MaxEntry: 1000})
		if got := get(t, s, dev, "npm-1", "npm-"); got != "" {
			t.Errorf("an empty cache has %q", got)
		}
		for _, key := range []string{"npm-1", "npm-3", "npm-2", "npmx-9"} {
			save(t, s, dev, key, 10)
			time.Sleep(time.Second)
		}
		save(t, s, dev, "npm-large", 1001)
		for _, tc := range []struct{ key, prefix, want string }{
			{"npm-1", "npm-", "npm-1"},         // exactly
			{"npm-4", "npm-", "npm-2"},         // the newest
			{"npm-4", "", ""},                  // nothing else is good enough
			{"npm-large", "npm-", "npm-2"},     // too large to be had
			{"pip-1", "pip-", ""},              //
			{"NPM-1", "NPM-", ""},              // case matters
			{"npm-1.tar.zst", "npm-1.tar", ""}, // a key is not the name of an object
		} {
			if got := get(t, s, dev, tc.key, tc.prefix); got != tc.want {
				t.Errorf("Get(%s, %s) = %q, want %q", tc.key, tc.prefix, got, tc.want)
			}
		}
		if got := get(t, s, ops, "npm-1", "npm-"); got != "" {
			t.Errorf("another stack finds %q", got)
		}
		check(t, s.Drop(t.Context(), dev, "npm-1"))
		check(t, s.Drop(t.Context(), dev, "npm-1"))
		if got := get(t, s, dev, "npm-1", ""); got != "" {
			t.Errorf("a dropped entry is found: %q", got)
		}
		check(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP test_cache_lookups_total Entries of the dependency cache that jobs asked for, by package manager and result: hit, partial or miss.
# TYPE test_cache_lookups_total counter
test_cache_lookups_total{manager="npm",result="hit"} 1
test_cache_lookups_total{manager="npm",result="miss"} 5
test_cache_lookups_total{manager="npm",result="partial"} 2
test_cache_lookups_total{manager="other",result="miss"} 1
test_cache_lookups_total{manager="pip",result="miss"} 1
`), "test_cache_lookups_total"))
	})
}

func TestShared(t *testing.T) {
	within(t, func(t *testing.T, b memory) {
		s := cachestore.New(cachestore.Options{Bucket: b, Shared: true})
		save(t, s, dev, "npm-1", 10)
		if got := get(t, s, ops, "npm-1", ""); got != "npm-1" {
			t.Errorf("another stack of the project finds %q", got)
		}
		other := cachestore.Owner{Organization: "acme", Project: "shop2", Stack: "dev"}
		if got := get(t, s, other, "npm-1", "npm"); got != "" {
			t.Errorf("another project finds %q", got)
		}
		// A stack that is called like the place of the shared entries has another.
		own := cachestore.New(cachestore.Options{Bucket: b})
		if got := get(t, own, cachestore.Owner{Organization: "acme", Project: "shop", Stack: "=shared"}, "npm-1", "npm"); got != "" {
			t.Errorf("a stack finds %q of all of them", got)
		}
	})
}

func TestClear(t *testing.T) {
	within(t, func(t *testing.T, b memory) {
		s := cachestore.New(cachestore.Options{Bucket: b})
		neighbour := cachestore.Owner{Organization: "acme", Project: "shop-2", Stack: "dev"}
		for _, o := range []cachestore.Owner{dev, ops, neighbour} {
			save(t, s, o, "npm-1", 10)
		}
		check(t, s.Clear(t.Context(), dev))
		if diff := cmp.Diff([]string{"cache/acme/shop-2/dev/npm-1.tar.zst"}, names(t, b)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBadNames(t *testing.T) {
	within(t, func(t *testing.T, b memory) {
		s := cachestore.New(cachestore.Options{Bucket: b})
		for _, key := range []string{"", ".", "..", ".hidden", "a/b", "../x", "a b", "a%2fb", "ä", strings.Repeat("x", 201)} {
			if _, err := s.Get(t.Context(), dev, key, ""); err == nil {
				t.Errorf("Get(%q) went well", key)
			}
			if _, err := s.Put(t.Context(), dev, key); err == nil {
				t.Errorf("Put(%q) went well", key)
			}
			if err := s.Drop(t.Context(), dev, key); err == nil {
				t.Errorf("Drop(%q) went well", key)
			}
			if key != "" {
				if _, err := s.Get(t.Context(), dev, "npm", key); err == nil {
					t.Errorf("Get with prefix %q went well", key)
				}
			}
		}
		for _, o := range []cachestore.Owner{{}, {"acme", "shop", ""}, {"acme", "..", "dev"}, {".", "shop", "dev"}} {
			if _, err := s.Get(t.Context(), o, "npm", ""); err == nil {
				t.Errorf("Get for %+v went well", o)
			}
			if err := s.Clear(t.Context(), o); err == nil {
				t.Errorf("Clear for %+v went well", o)
			}
		}
		// Other services have names that ours does not take.
		odd := cachestore.Owner{Organization: "a/c", Project: "sh op", Stack: "dév%"}
		save(t, s, odd, "npm", 1)
		if diff := cmp.Diff([]string{"cache/a%2Fc/sh+op/d%C3%A9v%25/npm.tar.zst"}, names(t, b)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSweep(t *testing.T) {
	const day = 24 * time.Hour
	within(t, func(t *testing.T, b memory) {
		s := cachestore.New(cachestore.Options{Bucket: b, MaxEntry: 100, MaxProject: 250, Log: zaptest.NewLogger(t)})
		start := time.Now()
		save(t, s, dev, "npm-unread", 10)
		save(t, s, dev, "npm-read", 10)
		check(t, b.Write(t.Context(), "cache/acme/shop/dev/npm-gone.used", nil))
		check(t, b.Write(t.Context(), "other/acme/shop/dev/npm.tar.zst", nil)) // somebody else's
		check(t, b.Write(t.Context(), "cache/README", nil))
		for range 25 {
			time.Sleep(day)
			get(t, s, dev, "npm-read", "")
		}
		time.Sleep(4 * day)
		check(t, s.Sweep(t.Context()))
		kept := []string{
			"cache/README",
			"cache/acme/shop/dev/npm-read.tar.zst", "cache/acme/shop/dev/npm-read.used", "cache/acme/shop/dev/npm-unread.tar.zst",
			"other/acme/shop/dev/npm.tar.zst",
		}
		if diff := cmp.Diff(kept, names(t, b)); diff != "" {
			t.Errorf("after 29 days: %s", diff)
		}
		time.Sleep(time.Until(start.Add(30*day + time.Second)))
		check(t, s.Sweep(t.Context()))
		if diff := cmp.Diff(slices.Delete(kept, 3, 4), names(t, b)); diff != "" {
			t.Errorf("after 30 days: %s", diff)
		}
		check(t, s.Clear(t.Context(), dev))

		// Four of 100 do not fit into 250; a neighbour has its own room.
		neighbour := cachestore.Owner{Organization: "acme", Project: "shop-2", Stack: "dev"}
		for _, key := range []string{"npm-1", "npm-2", "npm-3", "npm-4"} {
			save(t, s, dev, key, 100)
			save(t, s, ops, key+"-large", 101)
			time.Sleep(2 * day)
		}
		save(t, s, neighbour, "npm-1", 100)
		get(t, s, dev, "npm-1", "") // used, so that it is no longer the oldest
		check(t, s.Sweep(t.Context()))
		if diff := cmp.Diff([]string{
			"cache/README", "cache/acme/shop-2/dev/npm-1.tar.zst",
			"cache/acme/shop/dev/npm-1.tar.zst", "cache/acme/shop/dev/npm-1.used", "cache/acme/shop/dev/npm-4.tar.zst",
			"other/acme/shop/dev/npm.tar.zst",
		}, names(t, b)); diff != "" {
			t.Errorf("of a project that has too much: %s", diff)
		}
	})
}

// busy lets something happen between the list of a sweep and what it does.
type busy struct {
	memory
	meanwhile func(name string)
}

func (b busy) Stat(ctx context.Context, name string) (blob.Object, error) {
	if strings.HasSuffix(name, ".tar.zst") {
		b.meanwhile(name)
	}
	return b.memory.Stat(ctx, name)
}

// TestSweepSparesWhatCameBack: an entry that is replaced or used while a sweep
// goes on stays, and one that another sweep has dropped is no error.
func TestSweepSparesWhatCameBack(t *testing.T) {
	within(t, func(t *testing.T, b memory) {
		plain := cachestore.New(cachestore.Options{Bucket: b})
		for _, key := range []string{"go-dropped", "go-replaced", "go-unread", "go-used"} {
			save(t, plain, dev, key, 10)
		}
		time.Sleep(31 * 24 * time.Hour)
		s := cachestore.New(cachestore.Options{Bucket: busy{b, func(name string) {
			switch key := strings.TrimSuffix(name[strings.LastIndex(name, "/")+1:], ".tar.zst"); key {
			case "go-dropped":
				check(t, plain.Drop(t.Context(), dev, key))
			case "go-replaced":
				save(t, plain, dev, key, 10)
			case "go-used":
				get(t, plain, dev, key, "")
			}
		}}})
		check(t, s.Sweep(t.Context()))
		if diff := cmp.Diff([]string{
			"cache/acme/shop/dev/go-replaced.tar.zst", "cache/acme/shop/dev/go-used.tar.zst", "cache/acme/shop/dev/go-used.used",
		}, names(t, b)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestTwoSweepers lets two servers sweep one bucket while jobs use it.
func TestTwoSweepers(t *testing.T) {
	within(t, func(t *testing.T, b memory) {
		ctx, stop := context.WithCancel(t.Context())
		stores := make([]*cachestore.Store, 2)
		done := make(chan struct{})
		for i := range stores {
			stores[i] = cachestore.New(cachestore.Options{Bucket: b, MaxEntry: 100, MaxProject: 300})
			go func() {
				stores[i].Run(ctx)
				done <- struct{}{}
			}()
		}
		for n := range 100 {
			s := stores[n%2]
			save(t, s, dev, fmt.Sprintf("npm-%02d", n), 100)
			time.Sleep(17 * time.Minute)
			if got := get(t, s, dev, fmt.Sprintf("npm-%02d", n), ""); got == "" {
				t.Errorf("the newest entry, %d, is gone", n)
			}
		}
		time.Sleep(3 * time.Hour)
		if got := names(t, b); len(got) != 3 || !strings.HasSuffix(got[2], "npm-99.tar.zst") {
			t.Errorf("there are %q, want the last three", got)
		}
		stop()
		<-done
		<-done
	})
}

// TestFolderEntries goes the whole way of an entry with a real folder.
func TestFolderEntries(t *testing.T) {
	t.Parallel()
	var s *cachestore.Store
	reg := prometheus.NewRegistry()
	b, err := blob.OpenFolder("file://"+t.TempDir(), blob.FolderOptions{
		Key:     bytes.Repeat([]byte("k"), blob.MinKeyBytes),
		Observe: func(method, name string, n int64, took time.Duration) { s.Observe(method, name, n, took) },
	})
	check(t, err)
	defer b.Close()
	s = cachestore.New(cachestore.Options{Bucket: b, Registerer: reg, Namespace: "test"})
	web := httptest.NewServer(b.Handler())
	defer web.Close()
	key := "npm-" + strings.Repeat("x", cachestore.MaxKey-4) // as long as any
	put, err := s.Put(t.Context(), dev, key)
	check(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, web.URL+put.URL, strings.NewReader("hello"))
	check(t, err)
	resp, err := web.Client().Do(req)
	check(t, err)
	resp.Body.Close()
	link, err := s.Get(t.Context(), dev, "npm-other", "npm-")
	check(t, err)
	if link.Key != key || link.Size != 5 {
		t.Errorf("Get = %+v", link)
	}
	resp, err = web.Client().Get(web.URL + link.URL)
	check(t, err)
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(text) != "hello" {
		t.Errorf("the entry is %q, %v", text, err)
	}
	check(t, s.Sweep(t.Context()))
	web.Close() // waits for what the handler still has to do
	check(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP test_cache_bytes Bytes of these entries.
# TYPE test_cache_bytes gauge
test_cache_bytes 5
# HELP test_cache_transferred_bytes_total Bytes that went in or out by URLs that this program serves itself. What a cloud serves is not seen.
# TYPE test_cache_transferred_bytes_total counter
test_cache_transferred_bytes_total{direction="in",manager="npm"} 5
test_cache_transferred_bytes_total{direction="out",manager="npm"} 5
`), "test_cache_bytes", "test_cache_transferred_bytes_total"))
}
