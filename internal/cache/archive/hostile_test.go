package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/cache/archive"
	"github.com/longshore-run/longshore/internal/unpack"
)

// entries are the entries of one chunk.
type entries []tar.Header

func (all entries) chunk(t testing.TB) archive.Chunk {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range all {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Mode, h.ModTime = 0o755, time.Unix(1700000000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Skip(err) // no tar archive can hold it
		}
		if h.Size > 0 {
			_, _ = w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return archive.Chunk{Raw: b.Bytes()}
}

var root = tar.Header{Name: "node_modules/", Typeflag: tar.TypeDir}

func file(name string) tar.Header { return tar.Header{Name: name, Size: 5} }
func symlink(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
}

func hardLink(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink}
}
func folder(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir} }

// manifest is the right one for entries.
func (all entries) manifest() archive.Manifest {
	m := archive.Manifest{Format: 1, Key: key, Folders: []string{"node_modules"}, Entries: int64(len(all))}
	for _, h := range all {
		m.Bytes += h.Size
	}
	return m
}

// TestNothingLandsOutside: an archive of somebody who means harm, with a right
// manifest.
func TestNothingLandsOutside(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		entries entries
		wrong   string // empty: it is fine
	}{
		"as it should be":                  {entries{root, file("node_modules/a")}, ""},
		"links are made last":              {entries{root, symlink("node_modules/l", "d"), folder("node_modules/d"), file("node_modules/d/a")}, ""},
		"a hard link before its file":      {entries{root, hardLink("node_modules/h", "node_modules/a"), file("node_modules/a")}, ""},
		"an absolute path":                 {entries{root, file("/etc/evil")}, "leads out"},
		"..":                               {entries{root, file("../evil")}, "leads out"},
		".. inside":                        {entries{root, file("node_modules/a/../../evil")}, "none of the folders"},
		".. further":                       {entries{root, file("node_modules/../../evil")}, "leads out"},
		"a backslash":                      {entries{root, file(`node_modules/..\evil`)}, "leads out"},
		"another folder":                   {entries{root, file("elsewhere/a")}, "none of the folders"},
		"a file in place of the folder":    {entries{root, file("node_modules")}, "no folder"},
		"a link in place of the folder":    {entries{root, symlink("node_modules", "/tmp")}, "no folder"},
		"a file through a link":            {entries{root, symlink("node_modules/l", "/tmp"), file("node_modules/l/evil")}, "there twice"},
		"a link through a link":            {entries{root, symlink("node_modules/l", "/tmp"), symlink("node_modules/l/evil", "x")}, "there twice"},
		"a folder through a link":          {entries{root, symlink("node_modules/l", "/tmp"), folder("node_modules/l/evil")}, "there twice"},
		"a hard link through a link":       {entries{root, file("node_modules/a"), symlink("node_modules/l", "/tmp"), hardLink("node_modules/l/evil", "node_modules/a")}, "there twice"},
		"a hard link out":                  {entries{root, hardLink("node_modules/h", "/etc/passwd")}, "leads out"},
		"a hard link up":                   {entries{root, hardLink("node_modules/h", "node_modules/../../x")}, "leads out"},
		"a hard link to another folder":    {entries{root, hardLink("node_modules/h", "elsewhere/a")}, "out of its folder"},
		"a hard link to the folder":        {entries{root, hardLink("node_modules/h", "node_modules")}, "out of its folder"},
		"a hard link to a symbolic link":   {entries{root, symlink("node_modules/l", "/etc/passwd"), hardLink("node_modules/h", "node_modules/l")}, "no file"},
		"a hard link through a symlink":    {entries{root, symlink("node_modules/l", "/etc"), hardLink("node_modules/h", "node_modules/l/passwd")}, "no file"},
		"a hard link to a folder":          {entries{root, folder("node_modules/d"), hardLink("node_modules/h", "node_modules/d")}, "no file"},
		"a hard link over a file":          {entries{root, file("node_modules/a"), file("node_modules/b"), hardLink("node_modules/a", "node_modules/b")}, "there twice"},
		"a link over a file":               {entries{root, file("node_modules/a"), symlink("node_modules/a", "x")}, "there twice"},
		"a link over a folder":             {entries{root, folder("node_modules/a"), symlink("node_modules/a", "x")}, "there twice"},
		"a file twice":                     {entries{root, file("node_modules/a"), file("node_modules/a")}, "there twice"},
		"a folder twice":                   {entries{root, folder("node_modules/a"), folder("node_modules/a")}, "there twice"},
		"the folder twice":                 {entries{root, root}, "there twice"},
		"a file that is a folder, too":     {entries{root, file("node_modules/a"), file("node_modules/a/b")}, "there twice"},
		"a folder that is a file, too":     {entries{root, file("node_modules/a/b"), file("node_modules/a")}, "there twice"},
		"a link to nothing":                {entries{root, symlink("node_modules/l", "")}, "leads nowhere"},
		"a character device":               {entries{root, {Name: "node_modules/null", Typeflag: tar.TypeChar}}, "neither"},
		"a block device":                   {entries{root, {Name: "node_modules/sda", Typeflag: tar.TypeBlock}}, "neither"},
		"a pipe":                           {entries{root, {Name: "node_modules/pipe", Typeflag: tar.TypeFifo}}, "neither"},
		"a name that is too long":          {entries{root, file("node_modules/" + strings.Repeat("n", 300))}, "too long"},
		"nothing in a folder":              {entries{}, "does not name its folders"},
		"a folder that is not in the list": {entries{file("node_modules/a")}, "does not name its folders"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, _, err := read(t, bytes.NewReader(archive.Made(t, tc.entries.manifest(), tc.entries.chunk(t))))
			refused(t, err, tc.wrong)
			stays(t, dir)
		})
	}
}

func refused(t *testing.T, err error, wrong string) {
	t.Helper()
	var e *unpack.Error
	switch {
	case wrong == "" && err != nil:
		t.Errorf("error = %v", err)
	case wrong != "" && (!errors.As(err, &e) || !strings.Contains(e.Reason, wrong)):
		t.Errorf("error = %v, want %q", err, wrong)
	}
}

// stays checks that no file of the archive is anywhere but in dir.
func stays(t testing.TB, dir string) {
	t.Helper()
	for _, evil := range []string{"/tmp/evil", "/etc/evil", filepath.Join(dir, "../evil"), filepath.Join(dir, "../../evil")} {
		if _, err := os.Lstat(evil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", evil, err)
		}
	}
}

func TestWrongManifest(t *testing.T) {
	t.Parallel()
	all := entries{root, file("node_modules/a")}
	for name, tc := range map[string]struct {
		change func(m *archive.Manifest)
		wrong  string
	}{
		"another key":       {func(m *archive.Manifest) { m.Key = "npm-linux-amd64-4567" }, "belongs to the key"},
		"another form":      {func(m *archive.Manifest) { m.Format = 2 }, "has the form 2"},
		"an entry too many": {func(m *archive.Manifest) { m.Entries++ }, "its manifest says"},
		"a byte too few":    {func(m *archive.Manifest) { m.Bytes-- }, "its manifest says"},
		"no folder":         {func(m *archive.Manifest) { m.Folders = nil }, "does not name its folders"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := all.manifest()
			tc.change(&m)
			_, _, err := read(t, bytes.NewReader(archive.Made(t, m, all.chunk(t))))
			refused(t, err, tc.wrong)
		})
	}
}

// TestWrongParts: parts of a large file that are too many, too few, too short or
// nobody's.
func TestWrongParts(t *testing.T) {
	t.Parallel()
	const size = 2*archive.PartSize + 10
	all := entries{root, {Name: "node_modules/large", Size: size}}
	whole := all.chunk(t).Raw
	first := len(whole) - 2*archive.PartSize - 512
	begin := archive.Chunk{Raw: whole[:first+archive.PartSize]}
	second := archive.Chunk{Part: 1, Raw: whole[first+archive.PartSize : first+2*archive.PartSize]}
	third := archive.Chunk{Part: 2, Raw: whole[first+2*archive.PartSize:]}
	part := func(n uint32, c archive.Chunk) archive.Chunk { c.Part = n; return c }
	for name, tc := range map[string]struct {
		chunks []archive.Chunk
		wrong  string
	}{
		"as it should be":   {[]archive.Chunk{begin, second, third}, ""},
		"the last missing":  {[]archive.Chunk{begin, second}, "parts of a file are missing"},
		"one left out":      {[]archive.Chunk{begin, third}, "2-th part"},
		"one twice":         {[]archive.Chunk{begin, second, second}, "1-th part"},
		"one too many":      {[]archive.Chunk{begin, second, third, part(3, third)}, "too many"},
		"too short":         {[]archive.Chunk{begin, part(1, third), part(2, third)}, "too many"},
		"of no file":        {[]archive.Chunk{second}, "1-th part"},
		"of a small file":   {[]archive.Chunk{entries{root, file("node_modules/a")}.chunk(t), second}, "too many"},
		"begins too short":  {[]archive.Chunk{{Raw: begin.Raw[:len(begin.Raw)-1]}, second, third}, "not where it should be"},
		"a header cut off":  {[]archive.Chunk{{Raw: begin.Raw[:700]}}, "damaged"},
		"too large a chunk": {[]archive.Chunk{{Raw: make([]byte, 9<<20)}}, "a chunk of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := read(t, bytes.NewReader(archive.Made(t, all.manifest(), tc.chunks...)))
			refused(t, err, tc.wrong)
		})
	}
}

func TestReadLimits(t *testing.T) {
	t.Parallel()
	all := entries{root, file("node_modules/a"), file("node_modules/b")}
	content := archive.Made(t, all.manifest(), all.chunk(t))
	for name, tc := range map[string]struct {
		limits unpack.Limits
		wrong  string
	}{
		"as large as may be": {unpack.Limits{Bytes: 10, Files: 3}, ""},
		"too large":          {unpack.Limits{Bytes: 9, Files: 3}, "larger than"},
		"too many":           {unpack.Limits{Bytes: 10, Files: 2}, "more than 2 files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := archive.Read(t.Context(), bytes.NewReader(content), key, []archive.Folder{{Name: "node_modules", Path: t.TempDir()}}, tc.limits)
			refused(t, err, tc.wrong)
		})
	}
}

// FuzzEntries: whatever the entries are called, nothing is written outside.
func FuzzEntries(f *testing.F) {
	f.Add("node_modules/l", "/tmp", "node_modules/l/x", "node_modules/a")
	f.Add("node_modules/a/../..", "..", "node_modules", "../x")
	f.Fuzz(func(t *testing.T, a, to, b, c string) {
		all := entries{root, symlink(a, to), symlink(b, to), file(c), file(a + "/f"), file(b + "/f"), hardLink(c+"2", c), hardLink(a+"/h", to), folder(b)}
		dir, _, _ := read(t, bytes.NewReader(archive.Made(t, all.manifest(), all.chunk(t))))
		stays(t, dir)
	})
}

// FuzzRead: whatever an archive holds, reading it ends, in little memory.
func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, "a/b", "text", 0o644)
	var b bytes.Buffer
	if _, err := archive.Write(f.Context(), &b, key, []archive.Folder{{Name: "node_modules", Path: dir}}, 1<<30); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	all := entries{root, file("node_modules/a"), symlink("node_modules/l", "a")}
	f.Add(archive.Made(f, all.manifest(), all.chunk(f)))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir, _, _ := read(t, bytes.NewReader(content))
		stays(t, dir)
	})
}
