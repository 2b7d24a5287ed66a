package mirror

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func seal(t testing.TB, key Key, h Header, pack []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, key, h)
	if err != nil {
		t.Fatal(err)
	}
	for rest := pack; len(rest) > 0; { // in uneven parts
		n := min(len(rest), 10_007)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(sealed []byte, key Key) (Header, []byte, error) {
	r, h, err := NewReader(bytes.NewReader(sealed), key)
	if err != nil {
		return h, nil, err
	}
	pack, err := io.ReadAll(r)
	return h, pack, err
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> (i % 3))
	}
	return b
}

func TestSealed(t *testing.T) {
	t.Parallel()
	key := NewKey([]byte("commit"), []byte("tree"))
	h := Header{Commit: "c", Base: &Base{Name: "n", Key: key}, Depth: 2}
	for _, n := range []int{0, 1, chunkSize - 200, chunkSize, chunkSize + 1, 3 * chunkSize} {
		pack := content(n)
		sealed := seal(t, key, h, pack)
		got, back, err := open(sealed, key)
		if err != nil || !bytes.Equal(back, pack) || cmp.Diff(h, got) != "" {
			t.Errorf("%d bytes: %d came back, %v, %+v", n, len(back), err, got)
		}
		if err := check(bytes.NewReader(sealed)); err != nil {
			t.Errorf("%d bytes: check: %v", n, err)
		}
		if again := seal(t, key, h, pack); bytes.Equal(again[len(magic)+saltSize:], sealed[len(magic)+saltSize:]) {
			t.Errorf("%d bytes: sealed twice, the same comes out", n)
		}
		for name, other := range map[string]Key{
			"another commit's": NewKey([]byte("commit2"), []byte("tree")), "another tree's": NewKey([]byte("commit"), []byte("tree2")),
			"moved": NewKey([]byte("committ"), []byte("ree")), "none": nil,
		} {
			if _, _, err := open(sealed, other); !errors.Is(err, ErrBroken) {
				t.Errorf("%d bytes: with the key %s: %v, want ErrBroken", n, name, err)
			}
		}
	}
}

// TestDamageIsFound: every byte counts, and so does the end.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	key := NewKey([]byte("commit"), []byte("tree"))
	sealed := seal(t, key, Header{Commit: "c"}, content(chunkSize+100))
	for i := 0; i < len(sealed); i += 97 {
		bad := bytes.Clone(sealed)
		bad[i] ^= 4
		if err := check(bytes.NewReader(bad)); !errors.Is(err, ErrBroken) {
			t.Fatalf("byte %d changed: check() = %v", i, err)
		}
		if _, _, err := open(bad, key); i < len(sealed)-sha256.Size && !errors.Is(err, ErrBroken) {
			t.Fatalf("byte %d changed: open: %v", i, err)
		}
		if err := check(bytes.NewReader(sealed[:i])); !errors.Is(err, ErrBroken) {
			t.Fatalf("cut at %d: check() = %v", i, err)
		}
		if _, _, err := open(sealed[:i], key); i < len(sealed)-sha256.Size && !errors.Is(err, ErrBroken) {
			t.Fatalf("cut at %d: open: %v", i, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	key := NewKey([]byte("commit"), []byte("tree"))
	f.Add(seal(f, key, Header{Commit: "c"}, content(100)))
	f.Add([]byte(magic))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _, _ = open(b, key)
		_ = check(bytes.NewReader(b))
	})
}

func newStore(t *testing.T, max int64) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "mirror"), max)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// leave puts an entry where a job does.
func leave(t *testing.T, s *Store, out string, n int, size int) string {
	t.Helper()
	commit := fmt.Append(nil, n)
	name := Name(commit)
	shelf := &Shelf{Dir: s.Dir(), Out: out, Limit: s.Limit()}
	e := shelf.Create(name, NewKey(commit, nil), Header{Commit: "c"})
	_, _ = e.Write(content(size))
	if err := e.Keep(); err != nil {
		t.Fatal(err)
	}
	return name
}

func take(t *testing.T, s *Store, out string) Taken {
	t.Helper()
	taken, err := s.Take(out)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

func TestTheOldestGoesFirst(t *testing.T) {
	t.Parallel()
	s := newStore(t, 100_000)
	var names []string
	old := time.Now().Add(-time.Hour)
	for i := range 9 {
		out := t.TempDir()
		names = append(names, leave(t, s, out, i, 10_000))
		take(t, s, out)
		if err := os.Chtimes(filepath.Join(s.Dir(), names[i]), old, old.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	out := t.TempDir()
	shelf := &Shelf{Dir: s.Dir(), Out: out}
	shelf.Used(names[0])
	leave(t, s, out, 9, 10_000)
	if taken := take(t, s, out); taken.Added != 1 || taken.Used != 1 || taken.Evicted != 1 {
		t.Errorf("taken = %+v", taken)
	}
	if !shelf.Has(names[0]) || shelf.Has(names[1]) || !shelf.Has(names[2]) {
		t.Error("the one that was not used for longest should be gone, and no other")
	}
}

// TestWhatAJobLeavesIsNotTrusted: names, links, sizes and sums are looked at, and
// nobody can replace or remove what is good.
func TestWhatAJobLeavesIsNotTrusted(t *testing.T) {
	t.Parallel()
	s := newStore(t, 400_000)
	out := t.TempDir()
	good := leave(t, s, out, 1, 1000)
	take(t, s, out)
	before, err := os.ReadFile(filepath.Join(s.Dir(), good))
	if err != nil {
		t.Fatal(err)
	}

	out = t.TempDir()
	leave(t, s, out, 1, 2000) // the same name
	shelf := &Shelf{Dir: s.Dir(), Out: out}
	shelf.Broken(good)
	shelf.Broken("../" + good)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(out, Name([]byte("link")))); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(out, Name([]byte("folder"))), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		Name([]byte("junk")): []byte("junk"), "short": before, "UPPER": before,
		Name([]byte("cut")): before[:len(before)-1],
		Name([]byte("big")): seal(t, Key("k"), Header{}, content(150_000)),
	} {
		if err := os.WriteFile(filepath.Join(out, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if taken := take(t, s, out); taken != (Taken{}) {
		t.Errorf("taken = %+v, want nothing", taken)
	}
	files, err := os.ReadDir(s.Dir())
	if err != nil || len(files) != 1 {
		t.Errorf("entries: %v, %v", files, err)
	}
	if after, err := os.ReadFile(filepath.Join(s.Dir(), good)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the good one was changed: %v", err)
	}

	// What really is damaged goes.
	if err := os.Truncate(filepath.Join(s.Dir(), good), 50); err != nil {
		t.Fatal(err)
	}
	if taken := take(t, s, out); taken.Dropped != 1 || taken.Added != 1 {
		t.Errorf("taken = %+v, want the damaged one replaced", taken)
	}
}

func TestAnEntryThatIsTooLargeIsGivenUp(t *testing.T) {
	t.Parallel()
	shelf := &Shelf{Dir: t.TempDir(), Out: filepath.Join(t.TempDir(), "out"), Limit: 1000}
	e := shelf.Create(Name(nil), NewKey(nil, nil), Header{})
	for range 100 {
		if n, err := e.Write(content(10_000)); n != 10_000 || err != nil {
			t.Fatalf("Write() = %d, %v", n, err)
		}
	}
	if err := e.Keep(); !errors.Is(err, errTooLarge) {
		t.Errorf("Keep() = %v", err)
	}
	if left, err := os.ReadDir(shelf.Out); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestAStoreIsOpenedAgain: with what is left halfway removed, and a smaller limit
// heeded; by one process at a time.
func TestAStoreIsOpenedAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mirror")
	s, err := Open(dir, 400_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, 1); err == nil {
		t.Error("a second process could open it")
	}
	out := t.TempDir()
	leave(t, s, out, 1, 1000)
	leave(t, s, out, 2, 1000)
	take(t, s, out)
	if err := os.WriteFile(filepath.Join(s.Dir(), partPrefix+"1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, 1500); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if files, err := os.ReadDir(s.Dir()); err != nil || len(files) != 1 || !validName(files[0].Name()) {
		t.Errorf("entries: %v, %v", files, err)
	}
	if _, err := (&Shelf{Dir: s.Dir()}).Open("../" + filepath.Base(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open() of what is no name = %v", err)
	}
}
