package gitsrc_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
	"github.com/longshore-run/longshore/internal/mirror"
)

// mirrored is a repository with a mirror before it, as an agent and its jobs
// use it.
type mirrored struct {
	*origin
	url   string
	store *mirror.Store
	sent  atomic.Int64 // bytes that the server sent
	auth  gitsrc.Auth
}

func newMirrored(t *testing.T) *mirrored {
	t.Helper()
	m := &mirrored{origin: newOrigin(t), auth: gitsrc.Auth{Token: secret}}
	m.git(t, m.dir, "config", "uploadpack.allowFilter", "true")
	for i := range 40 { // something to be saved, that does not compress
		write(t, m.work, fmt.Sprintf("data/%02d.txt", i), noise(i))
	}
	m.commit(t, "Data")
	store, err := mirror.Open(filepath.Join(t.TempDir(), "mirror"), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	m.store = store
	m.url = serve(t, basic("x-access-token", secret, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.backend().ServeHTTP(countedWriter{w, &m.sent}, r)
	}))) + "/repo.git"
	return m
}

func noise(seed int) string {
	var b strings.Builder
	x := uint64(seed)*2654435761 + 88172645463325252
	for range 400 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		fmt.Fprintf(&b, "%016x\n", x)
	}
	return b.String()
}

type countedWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w countedWriter) Write(p []byte) (int, error) {
	w.n.Add(int64(len(p)))
	return w.ResponseWriter.Write(p)
}

// commit pushes the work tree as the next commit of feature/dev.
func (m *mirrored) commit(t *testing.T, message string) string {
	t.Helper()
	m.git(t, m.work, "add", ".")
	m.git(t, m.work, "commit", "-qm", message)
	m.git(t, m.work, "push", "-q", m.dir, "HEAD:refs/heads/feature/dev")
	return m.git(t, m.work, "rev-parse", "HEAD")
}

// job is one checkout of a job, after which the agent takes what is new.
func (m *mirrored) job(t *testing.T, on engine, r gitsrc.Request) (dir, lines string, sent int64, taken mirror.Taken) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	r.Mirror = &mirror.Shelf{Dir: m.store.Dir(), Out: out, Limit: m.store.Limit()}
	r.Dir = filepath.Join(t.TempDir(), "src")
	if r.URL == "" {
		r.URL, r.Auth = m.url, m.auth
	}
	if r.Branch == "" && r.Commit == "" {
		r.Branch = "feature/dev"
	}
	m.sent.Store(0)
	got, lines, err := on.checkout(t, r)
	if err != nil {
		t.Fatalf("Checkout: %v\n%s", err, lines)
	}
	head, ref := m.git(t, m.dir, "rev-parse", r.Branch+r.Commit+"^{commit}"), ""
	if r.Branch == "feature/dev" {
		ref = "refs/heads/feature/dev"
	}
	if got.Commit != head {
		t.Errorf("commit = %s, want %s", got.Commit, head)
	}
	m.wantNormal(t, r.Dir, r.URL, head, ref)
	if _, err := os.Stat(out); err == nil {
		if taken, err = m.store.Take(out); err != nil {
			t.Fatal(err)
		}
	}
	return r.Dir, lines, m.sent.Load(), taken
}

// TestTheMirrorServesTheNextCheckout: the same commit comes without its files,
// the next with what is new in it, a tag of it with the tag.
func TestTheMirrorServesTheNextCheckout(t *testing.T) {
	eachEngine(t, testTheMirrorServesTheNextCheckout)
}

func testTheMirrorServesTheNextCheckout(t *testing.T, on engine) {
	m := newMirrored(t)
	cold, _, all, taken := m.job(t, on, gitsrc.Request{})
	if taken.Added != 1 {
		t.Fatalf("taken = %+v, want one entry", taken)
	}
	warm, lines, sent, taken := m.job(t, on, gitsrc.Request{})
	if sent > all/10 || taken.Added != 0 || taken.Used != 1 || !strings.Contains(lines, "comes from the mirror") {
		t.Errorf("the server sent %d bytes after %d, taken %+v\n%s", sent, all, taken, lines)
	}
	for _, dir := range []string{cold, warm} {
		noSecretBelow(t, dir)
		if b, err := os.ReadFile(filepath.Join(dir, "data", "07.txt")); err != nil || string(b) != noise(7) {
			t.Errorf("data/07.txt: %d bytes, %v", len(b), err)
		}
	}
	m.git(t, m.work, "tag", "-a", "-m", "Two", "v2")
	m.git(t, m.work, "push", "-q", m.dir, "v2")
	dir, _, _, _ := m.job(t, on, gitsrc.Request{Branch: "v2"})
	if kind := m.git(t, dir, "cat-file", "-t", "refs/tags/v2"); kind != "tag" {
		t.Errorf("v2 is a %s", kind)
	}
	// Commit after commit. go-git gets each as a whole.
	for i := range deepestEntry + 2 {
		write(t, m.work, "data/00.txt", noise(100+i))
		m.commit(t, "Next")
		_, lines, sent, taken := m.job(t, on, gitsrc.Request{})
		whole := on.Engine == gitsrc.EngineGoGit
		if (sent > all/4) != whole || taken.Added != 1 {
			t.Errorf("commit %d: the server sent %d bytes, for all %d, taken %+v\n%s", i, sent, all, taken, lines)
		}
	}
}

// deepestEntry is how many entries rely on one another; those after it rely on an
// older one.
const deepestEntry = 8

// TestTheMirrorTellsNobodyElse: what is kept shows nothing of the repository, and
// who is not let in by the server gets nothing out of it.
func TestTheMirrorTellsNobodyElse(t *testing.T) {
	m := newMirrored(t)
	on := engine{gitsrc.EngineGit}
	m.job(t, on, gitsrc.Request{})
	files, err := os.ReadDir(m.store.Dir())
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	content, err := os.ReadFile(filepath.Join(m.store.Dir(), files[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	head := m.git(t, m.dir, "rev-parse", "feature/dev")
	for _, needle := range []string{"PACK", head, "repo.git", "Ann Author"} {
		if bytes.Contains(content, []byte(needle)) || strings.Contains(files[0].Name(), needle) {
			t.Errorf("the entry shows %q", needle)
		}
	}
	for name, r := range map[string]gitsrc.Request{
		"without credentials":   {URL: m.url, Branch: "feature/dev"},
		"with others":           {URL: m.url, Commit: head, Auth: gitsrc.Auth{Token: "wrong"}},
		"from another server":   {URL: serve(t, http.NotFoundHandler()) + "/repo.git", Commit: head},
		"of another repository": {URL: serve(t, newOrigin(t).backend()) + "/repo.git", Commit: head},
	} {
		t.Run(name, func(t *testing.T) {
			r.Dir = filepath.Join(t.TempDir(), "src")
			r.Mirror = &mirror.Shelf{Dir: m.store.Dir(), Out: t.TempDir()}
			if _, lines, err := on.checkout(t, r); err == nil {
				t.Errorf("Checkout succeeded\n%s", lines)
			}
		})
	}
}

// TestABadMirrorChangesNothing: damaged entries, and entries that other jobs made
// up, cost time and nothing else.
func TestABadMirrorChangesNothing(t *testing.T) { eachEngine(t, testABadMirrorChangesNothing) }

func testABadMirrorChangesNothing(t *testing.T, on engine) {
	entry := func(t *testing.T, m *mirrored) string {
		files, err := os.ReadDir(m.store.Dir())
		if err != nil || len(files) != 1 {
			t.Fatalf("%v, %v", files, err)
		}
		return filepath.Join(m.store.Dir(), files[0].Name())
	}
	for name, tc := range map[string]struct {
		spoil   func(t *testing.T, m *mirrored, path string)
		dropped bool
	}{
		"cut off": {func(t *testing.T, _ *mirrored, path string) {
			if err := os.Truncate(path, 100_000); err != nil {
				t.Fatal(err)
			}
		}, true},
		"empty": {func(t *testing.T, _ *mirrored, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}, true},
		"changed in the middle": {func(t *testing.T, _ *mirrored, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2]++
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
		"another commit's files, by one who has the key": {func(t *testing.T, m *mirrored, path string) {
			m.forge(t, path, m.pack(t, m.first), m.git(t, m.dir, "rev-parse", "feature/dev"))
		}, false},
		"no pack at all, by one who has the key": {func(t *testing.T, m *mirrored, path string) {
			m.forge(t, path, []byte("PACK is not what this is"), m.git(t, m.dir, "rev-parse", "feature/dev"))
		}, false},
		"a pack without the last object": {func(t *testing.T, m *mirrored, path string) {
			m.forge(t, path, m.pack(t, "feature/dev", "feature/dev:data/07.txt"), m.git(t, m.dir, "rev-parse", "feature/dev"))
		}, false},
	} {
		if on.Engine == gitsrc.EngineGoGit && tc.dropped {
			continue // found out before any engine sees it
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMirrored(t)
			m.job(t, on, gitsrc.Request{})
			tc.spoil(t, m, entry(t, m))
			dir, lines, _, taken := m.job(t, on, gitsrc.Request{})
			if b, err := os.ReadFile(filepath.Join(dir, "data", "07.txt")); err != nil || string(b) != noise(7) {
				t.Errorf("data/07.txt: %d bytes, %v\n%s", len(b), err, lines)
			}
			if !strings.Contains(lines, "note: ") {
				t.Errorf("nothing is said of it:\n%s", lines)
			}
			if (taken.Dropped == 1) != tc.dropped {
				t.Errorf("taken = %+v, want it dropped: %t", taken, tc.dropped)
			}
		})
	}
}

// pack returns a pack of a commit, without one of its objects.
func (m *mirrored) pack(t *testing.T, rev string, without ...string) []byte {
	t.Helper()
	list := m.git(t, m.dir, "rev-list", "--objects", "--no-object-names", "-1", rev)
	for _, w := range without {
		list = strings.Replace(list, m.git(t, m.dir, "rev-parse", w)+"\n", "", 1)
	}
	write(t, filepath.Dir(m.work), "list", list+"\n")
	base := filepath.Join(t.TempDir(), "p")
	hash := m.git(t, m.dir, "-c", "core.abbrev=no", "-c", "pack.threads=1", "-c", "alias.po=!git pack-objects -q "+base+" <"+filepath.Join(filepath.Dir(m.work), "list"), "po")
	b, err := os.ReadFile(base + "-" + hash + ".pack")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// forge writes an entry with the key of the tip of feature/dev.
func (m *mirrored) forge(t *testing.T, path string, pack []byte, commit string) {
	t.Helper()
	raw := m.git(t, m.dir, "cat-file", "commit", commit) + "\n"
	tree, err := os.ReadFile(m.catTree(t, commit))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := mirror.NewWriter(&b, mirror.NewKey([]byte(raw), tree), mirror.Header{Commit: commit})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(pack); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if name := mirror.Name([]byte(raw)); name != filepath.Base(path) {
		t.Fatalf("the entry is called %s, want %s", filepath.Base(path), name)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// catTree writes the raw topmost tree of a commit to a file.
func (m *mirrored) catTree(t *testing.T, commit string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tree")
	m.git(t, m.dir, "-c", "alias.ct=!git cat-file tree "+commit+"^{tree} >"+path, "ct")
	return path
}
