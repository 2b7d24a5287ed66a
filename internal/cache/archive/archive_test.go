package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/cache/archive"
	"github.com/longshore-run/longshore/internal/unpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "npm-linux-amd64-0123"

// write puts a file below dir and makes the folders to it.
func write(t testing.TB, dir, name, text string, mode fs.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// noise is n bytes that cannot be compressed.
func noise(n int) string {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{7})
	_, _ = random.Read(b)
	return string(b)
}

// plenty fills a folder with one of everything that an archive keeps.
func plenty(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "node_modules")
	for i := range 600 { // more than one chunk holds
		write(t, dir, fmt.Sprintf("package-%d/lib/index.js", i%50)+fmt.Sprint(i), strings.Repeat("text ", i), 0o644)
	}
	write(t, dir, "run.sh", "#!/bin/sh\n", 0o755)
	write(t, dir, "secret", "only mine", 0o600)
	write(t, dir, "read-only/file", "x", 0o444)
	write(t, dir, "wide-open", "x", 0o666) // more than a usual umask lets through
	write(t, dir, "empty", "", 0o640)
	write(t, dir, "name with ünïcode\nand a line", "x", 0o644)
	write(t, dir, strings.Repeat("long/", 60)+strings.Repeat("n", 200), "deep", 0o644)
	write(t, dir, "a-part", noise(2<<20), 0o644)
	write(t, dir, "a-part-and-a-byte", noise(2<<20+1), 0o755)
	write(t, dir, "parts", noise(7<<20+12345), 0o644)
	for name, to := range map[string]string{
		".bin/tsc": "../package-1/lib/index.js1", "dangling": "nowhere", "out": "/usr/bin/python3", "up": "../../elsewhere", "loop": "loop",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.Symlink(to, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.Link(filepath.Join(dir, "parts"), filepath.Join(dir, "again")),
		os.Link(filepath.Join(dir, "run.sh"), filepath.Join(dir, "package-3", "same")),
		os.MkdirAll(filepath.Join(dir, "nothing", "in", "here"), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2024, 2, 29, 12, 30, 15, 123456789, time.UTC)
	for _, name := range []string{"run.sh", "read-only/file", "parts", "nothing/in", "read-only", "package-7"} {
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "read-only"), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "read-only"), 0o755) })
	return dir
}

// listing describes all that is in a directory.
func listing(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		what := fmt.Sprint(info.Mode())
		if name != "." {
			what += " " + info.ModTime().UTC().Format(time.RFC3339Nano)
		}
		switch {
		case d.Type() == fs.ModeSymlink:
			to, _ := os.Readlink(path)
			what += " -> " + to
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %d %x", len(content), hash(content))
			number := info.Sys().(*syscall.Stat_t).Ino
			if first, ok := inodes[number]; ok {
				what += " is " + first
			} else {
				inodes[number] = name
			}
		}
		all[name] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func hash(b []byte) uint64 {
	sum := uint64(14695981039346656037)
	for _, c := range b {
		sum = (sum ^ uint64(c)) * 1099511628211
	}
	return sum
}

// packed returns an archive of folders.
func packed(t testing.TB, folders ...archive.Folder) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := archive.Write(t.Context(), &b, key, folders, 1<<30); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read unpacks an archive that holds node_modules into a new directory, and
// checks that nothing was written beside it.
func read(t testing.TB, content io.Reader) (dir string, m archive.Manifest, err error) {
	t.Helper()
	around := t.TempDir()
	dir = filepath.Join(around, "stage")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err = archive.Read(t.Context(), content, key, []archive.Folder{{Name: "node_modules", Path: dir}}, unpack.Limits{Bytes: 64 << 20, Files: 5000})
	if entries, listErr := os.ReadDir(around); listErr != nil || len(entries) != 1 {
		t.Errorf("beside the directory there is %v (%v)", entries, listErr)
	}
	return dir, m, err
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	from := plenty(t)
	content := packed(t, archive.Folder{Name: "node_modules", Path: from})
	dir, m, err := read(t, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "read-only"), 0o755) })
	if diff := cmp.Diff(listing(t, from), listing(t, dir)); diff != "" {
		t.Errorf("unpacked, it differs (-want +got):\n%s", diff)
	}
	if m.Key != key || m.Entries < 600 || m.Size >= int64(len(content)) || len(m.SHA256) != 64 {
		t.Errorf("manifest = %+v", m)
	}
}

// TestOrdinaryTools: it is a tar archive, compressed with zstd.
func TestOrdinaryTools(t *testing.T) {
	t.Parallel()
	from := plenty(t)
	plain, err := zstd.NewReader(bytes.NewReader(packed(t, archive.Folder{Name: "node_modules", Path: from})))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	r, names := tar.NewReader(plain), map[string]int64{}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			t.Fatal(err)
		}
		names[strings.TrimSuffix(strings.TrimPrefix(h.Name, "node_modules/"), "/")] = n
	}
	if names["again"] != 7<<20+12345 || len(names) != len(listing(t, from)) {
		t.Errorf("%d entries, again has %d bytes", len(names), names["again"])
	}
}

func TestSeveralFolders(t *testing.T) {
	t.Parallel()
	around := t.TempDir()
	write(t, around, "a/x", "ax", 0o644)
	write(t, around, "b/x", "bx", 0o644)
	if err := os.Mkdir(filepath.Join(around, "hollow"), 0o755); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(around, name) }
	content := packed(t, archive.Folder{Name: "one", Path: at("a")}, archive.Folder{Name: "gone", Path: at("gone")},
		archive.Folder{Name: "hollow", Path: at("hollow")}, archive.Folder{Name: "two", Path: at("b")})
	into := map[string]string{"one": t.TempDir(), "two": t.TempDir(), "three": t.TempDir()}
	var folders []archive.Folder
	for name, path := range into {
		folders = append(folders, archive.Folder{Name: name, Path: path})
	}
	m, err := archive.Read(t.Context(), bytes.NewReader(content), key, folders, unpack.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "two"}, m.Folders); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{"one": "ax", "two": "bx"} {
		if got, err := os.ReadFile(filepath.Join(into[name], "x")); string(got) != want {
			t.Errorf("%s/x = %q (%v), want %q", name, got, err, want)
		}
	}
}

func TestSpecialFilesAreLeftOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "file", "x", 0o644)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	into, _, err := read(t, bytes.NewReader(packed(t, archive.Folder{Name: "node_modules", Path: dir})))
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, into); len(got) != 2 {
		t.Errorf("unpacked: %v", got)
	}
}

// TestDamaged: wherever an archive is cut off, and whichever byte of it is
// another, it is refused, and not because of the disk.
func TestDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a/b", noise(1000), 0o644)
	write(t, dir, "c", noise(2<<20+1), 0o644)
	for i := range 20 {
		write(t, dir, fmt.Sprintf("many/%d", i), "x", 0o644)
	}
	content := packed(t, archive.Folder{Name: "node_modules", Path: dir})
	places := []int{0, 1, 4, 7, 8, 19, 20, 21, 100}
	for at := 0; at < len(content); at += len(content)/20 + 1 {
		places = append(places, at)
	}
	for back := 1; back < 400; back += 37 {
		places = append(places, len(content)-back)
	}
	for at := 0; ; { // the beginning of each chunk, and what is around it
		next := bytes.Index(content[at+1:], []byte{0x5a, 0x2a, 0x4d, 0x18})
		if next < 0 {
			break
		}
		at += 1 + next
		places = append(places, at-1, at, at+4, at+8, at+12, at+16, at+20)
	}
	for _, at := range places {
		flipped := bytes.Clone(content)
		flipped[at] ^= 0x10
		for how, damaged := range map[string][]byte{"cut off": content[:at], "flipped": flipped, "with more": append(bytes.Clone(content), content[:at+1]...)} {
			var e *unpack.Error
			if _, _, err := read(t, bytes.NewReader(damaged)); !errors.As(err, &e) {
				t.Errorf("%s at byte %d of %d: error = %v, want an *unpack.Error", how, at, len(content), err)
			}
		}
	}
}

func TestErrorsOfTheReaderStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a", noise(5<<20), 0o644)
	content := packed(t, archive.Folder{Name: "node_modules", Path: dir})
	broken := fmt.Errorf("the line is dead: %w", io.ErrUnexpectedEOF)
	for _, n := range []int64{0, 4, 20, 1000, 3 << 20} {
		var e *unpack.Error
		if _, _, err := read(t, io.MultiReader(io.LimitReader(bytes.NewReader(content), n), failing{broken})); !errors.Is(err, broken) || errors.As(err, &e) {
			t.Errorf("after %d bytes: error = %v, want that of the reader", n, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestCancel(t *testing.T) {
	t.Parallel()
	from := plenty(t)
	content := packed(t, archive.Folder{Name: "node_modules", Path: from})
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	within := &cancelling{r: bytes.NewReader(content), cancel: func() { cancel(enough) }, after: len(content) / 2}
	_, err := archive.Read(ctx, within, key, []archive.Folder{{Name: "node_modules", Path: t.TempDir()}}, unpack.Limits{})
	if !errors.Is(err, enough) {
		t.Errorf("Read: error = %v", err)
	}
	if _, err = archive.Write(ctx, io.Discard, key, []archive.Folder{{Name: "node_modules", Path: from}}, 1<<30); !errors.Is(err, enough) {
		t.Errorf("Write: error = %v", err)
	}
}

type cancelling struct {
	r      io.Reader
	cancel func()
	after  int
}

func (c *cancelling) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.after -= n; c.after <= 0 {
		c.cancel()
	}
	return n, err
}

func TestWriteLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a", noise(3<<20), 0o644)
	folder := []archive.Folder{{Name: "node_modules", Path: dir}}
	var b bytes.Buffer
	if _, err := archive.Write(t.Context(), &b, key, folder, 1<<20); !errors.Is(err, archive.ErrTooLarge) || b.Len() > 1<<20 {
		t.Errorf("error = %v after %d bytes", err, b.Len())
	}
	disk := errors.New("no space")
	if _, err := archive.Write(t.Context(), failingWriter{disk}, key, folder, 1<<30); !errors.Is(err, disk) {
		t.Errorf("error = %v", err)
	}
	write(t, dir, `back\slash`, "x", 0o644)
	if _, err := archive.Write(t.Context(), io.Discard, key, folder, 1<<30); err == nil || !strings.Contains(err.Error(), "cannot be kept") {
		t.Errorf("a name that could not be restored: error = %v", err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }
