package unpack_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/unpack"
)

// entry is one thing in an archive.
type entry struct {
	name, text string
	mode       fs.FileMode // 0 means a file of mode 0644
}

func tarball(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: int64(e.mode.Perm()), Typeflag: tar.TypeReg, Size: int64(len(e.text))}
		switch {
		case e.mode.IsDir():
			h.Typeflag, h.Size = tar.TypeDir, 0
		case e.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, e.text
		case e.mode&fs.ModeIrregular != 0:
			h.Typeflag, h.Size, h.Linkname = tar.TypeLink, 0, e.text
		case e.mode&fs.ModeDevice != 0:
			h.Typeflag, h.Size = tar.TypeChar, 0
		case e.mode == 0:
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte(e.text))
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if h.SetMode(e.mode); e.mode == 0 {
			h.SetMode(0o644)
		}
		if e.mode.IsDir() {
			h.Name = strings.TrimSuffix(e.name, "/") + "/"
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if !e.mode.IsDir() {
			f.Write([]byte(e.text))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func do(t testing.TB, archive []byte, limits unpack.Limits) (dir string, err error) {
	t.Helper()
	around := t.TempDir()
	dir = filepath.Join(around, "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(around, "archive"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(archive); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	err = unpack.Unpack(context.Background(), file, dir, limits)
	stays(t, around)
	return dir, err
}

// stays checks that nothing was written beside dir, and that no link leads out.
func stays(t testing.TB, around string) {
	t.Helper()
	entries, err := os.ReadDir(around)
	if err != nil || len(entries) != 2 {
		t.Errorf("beside dir there is %v (%v)", entries, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(around, "dir"))
	if err != nil {
		t.Fatal(err)
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		to, err := filepath.EvalSymlinks(path)
		if err != nil { // dangling: where its text leads
			text, _ := os.Readlink(path)
			to = filepath.Join(filepath.Dir(path), text)
		}
		if to != dir && !strings.HasPrefix(to, dir+"/") {
			t.Errorf("%s leads to %s", path, to)
		}
		return nil
	})
}

const link = fs.ModeSymlink | 0o777

func TestUnpack(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		entries []entry
		limits  unpack.Limits
		wrong   string // what the error says; empty for none
		want    map[string]string
	}{
		"files and folders":               {entries: []entry{{name: "Pulumi.yaml", text: "name: x"}, {name: "a/b/c.txt", text: "c"}, {name: "empty/", mode: fs.ModeDir | 0o755}}, want: map[string]string{"Pulumi.yaml": "name: x", "a/b/c.txt": "c"}},
		"all below one folder":            {entries: []entry{{name: "r-main/", mode: fs.ModeDir | 0o755}, {name: "r-main/Pulumi.yaml", text: "p"}, {name: "r-main/r-main/x", text: "x"}, {name: "r-main/l", text: "r-main/x", mode: link}}, want: map[string]string{"Pulumi.yaml": "p", "r-main/x": "x", "l": "x"}},
		"one file":                        {entries: []entry{{name: "Pulumi.yaml", text: "p"}}, want: map[string]string{"Pulumi.yaml": "p"}},
		"with ./ before it":               {entries: []entry{{name: "./a", text: "a"}, {name: "./b/c", text: "c"}}, want: map[string]string{"a": "a", "b/c": "c"}},
		"links inside":                    {entries: []entry{{name: "a/b/c", text: "c"}, {name: "d/l", text: "../a/b/c", mode: link}, {name: "e", text: "a", mode: link}}, want: map[string]string{"d/l": "c", "e/b/c": "c"}},
		"an absolute path":                {entries: []entry{{name: "/etc/evil", text: "x"}}, wrong: "leads out"},
		"..":                              {entries: []entry{{name: "../evil", text: "x"}}, wrong: "leads out"},
		".. inside":                       {entries: []entry{{name: "a/../../evil", text: "x"}}, wrong: "leads out"},
		"a backslash":                     {entries: []entry{{name: `..\evil`, text: "x"}}, wrong: "leads out"},
		"a link to an absolute path":      {entries: []entry{{name: "l", text: "/etc", mode: link}}, wrong: "leads out"},
		"a link above":                    {entries: []entry{{name: "a/l", text: "../..", mode: link}}, wrong: "leads out"},
		"a file through a link":           {entries: []entry{{name: "a/b", text: "b"}, {name: "l", text: "a", mode: link}, {name: "l/evil", text: "x"}}, wrong: "something else, too"},
		"a link through a link":           {entries: []entry{{name: "d/up", text: "..", mode: link}, {name: "x", text: "d/up/../..", mode: link}}, wrong: "round about"},
		"a link round about":              {entries: []entry{{name: "d/e/up", text: "../..", mode: link}, {name: "x", text: "d/e/up/../y", mode: link}}, wrong: "round about"},
		"a link below a link":             {entries: []entry{{name: "d/up", text: "..", mode: link}, {name: "d/up/evil", text: "../x", mode: link}}, wrong: "something else, too"},
		"a link out of the only folder":   {entries: []entry{{name: "top/l", text: "../x", mode: link}}, wrong: "out of the folder"},
		"a file in the place of a link":   {entries: []entry{{name: "l", text: "x", mode: link}, {name: "l", text: "y"}}, wrong: "there twice"},
		"a link in the place of a file":   {entries: []entry{{name: "l", text: "y"}, {name: "l", text: "x", mode: link}}, wrong: "there twice"},
		"a file in the place of a folder": {entries: []entry{{name: "a/b", text: "y"}, {name: "a", text: "x"}}, wrong: "there twice"},
		"too large":                       {entries: []entry{{name: "zeros", text: strings.Repeat("\x00", 3<<20)}}, limits: unpack.Limits{Bytes: 2 << 20}, wrong: "larger than 2 MiB"},
		"as large as may be":              {entries: []entry{{name: "zeros", text: strings.Repeat("\x00", 2<<20)}}, limits: unpack.Limits{Bytes: 2 << 20}},
		"too large together":              {entries: []entry{{name: "a", text: strings.Repeat("\x00", 1<<20)}, {name: "b", text: strings.Repeat("\x00", 1<<20+1)}}, limits: unpack.Limits{Bytes: 2 << 20}, wrong: "larger than 2 MiB"},
		"too many":                        {entries: []entry{{name: "a"}, {name: "b"}, {name: "c"}}, limits: unpack.Limits{Files: 2}, wrong: "more than 2 files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kind, archive := range map[string][]byte{"tar": tarball(t, tc.entries), "zip": zipped(t, tc.entries)} {
				dir, err := do(t, archive, tc.limits)
				var e *unpack.Error
				switch {
				case tc.wrong != "" && (!errors.As(err, &e) || !strings.Contains(e.Reason, tc.wrong)):
					t.Errorf("%s: error = %v, want %q", kind, err, tc.wrong)
				case tc.wrong == "" && err != nil:
					t.Errorf("%s: %v", kind, err)
				}
				for file, want := range tc.want {
					if got, err := os.ReadFile(filepath.Join(dir, file)); string(got) != want {
						t.Errorf("%s: %s = %q (%v), want %q", kind, file, got, err, want)
					}
				}
			}
		})
	}
}

// TestOnlyInTar: kinds of entries that zip does not have.
func TestOnlyInTar(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]entry{
		"a hard link": {name: "l", text: "/etc/passwd", mode: fs.ModeIrregular},
		"a device":    {name: "null", mode: fs.ModeDevice | 0o666},
	} {
		if _, err := do(t, tarball(t, []entry{e}), unpack.Limits{}); err == nil || !strings.Contains(err.Error(), "neither a file") {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}

func TestDamaged(t *testing.T) {
	t.Parallel()
	good := []entry{{name: "a", text: strings.Repeat("some text ", 1000)}}
	for name, archive := range map[string][]byte{
		"empty": {}, "a page": []byte("<html>"), "a tar cut off": tarball(t, good)[:60], "a zip cut off": zipped(t, good)[:60],
		"a zip with a wrong sum": bytes.Replace(zipped(t, good), []byte{0x50, 0x4b, 0x01, 0x02}, []byte{0x50, 0x4b, 0x01, 0x03}, 1),
	} {
		var e *unpack.Error
		if _, err := do(t, archive, unpack.Limits{}); !errors.As(err, &e) {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	dir, err := do(t, tarball(t, []entry{{name: "run.sh", mode: 0o755 | fs.ModeSetuid, text: "x"}, {name: "plain", mode: 0o600, text: "x"}}), unpack.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"run.sh": 0o755, "plain": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

// FuzzUnpack: whatever an archive holds, nothing is written outside.
func FuzzUnpack(f *testing.F) {
	f.Add("a/l", "../b", "a/l/x", "y")
	f.Add("d/up", "..", "x", "d/up/../..")
	f.Fuzz(func(t *testing.T, a, toA, b, toB string) {
		var archive bytes.Buffer
		w := zip.NewWriter(&archive)
		for _, e := range []entry{{name: a, text: toA, mode: link}, {name: b, text: toB, mode: link}, {name: a + "/f", text: "f"}, {name: b + "/f", text: "f"}} {
			h := &zip.FileHeader{Name: e.name}
			if h.SetMode(e.mode); e.mode == 0 {
				h.SetMode(0o644)
			}
			if file, err := w.CreateHeader(h); err == nil {
				file.Write([]byte(e.text))
			}
		}
		w.Close()
		_, _ = do(t, archive.Bytes(), unpack.Limits{})
	})
}
