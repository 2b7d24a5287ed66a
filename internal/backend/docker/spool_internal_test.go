package docker

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestExtractFilesTakesNothingElse(t *testing.T) {
	t.Parallel()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range []tar.Header{
		{Name: "spool/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "spool/00000001.spool", Typeflag: tar.TypeReg, Mode: 0o4777, Size: 4},
		{Name: "spool/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		{Name: "spool/hard", Typeflag: tar.TypeLink, Linkname: "spool/00000001.spool"},
		{Name: "spool/device", Typeflag: tar.TypeChar},
		{Name: "spool/below/file", Typeflag: tar.TypeReg, Size: 4},
		{Name: "spool/../escaped", Typeflag: tar.TypeReg, Size: 4},
		{Name: "/etc/cron.d/job", Typeflag: tar.TypeReg, Size: 4},
		{Name: "spool/..", Typeflag: tar.TypeReg, Size: 4},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("text")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := extractFiles(&archive, "spool", dir)
	if n != 1 || err != nil {
		t.Errorf("extractFiles() = %d, %v, want the one file", n, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "00000001.spool" {
		t.Fatalf("entries %v, %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*")); len(left) != 1 {
		t.Errorf("beside the directory: %q", left)
	}
}

func TestExtractFilesKeepsWhatIsThereOfACutArchive(t *testing.T) {
	t.Parallel()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "spool/00000001.spool", Typeflag: tar.TypeReg, Size: 1000}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n, err := extractFiles(bytes.NewReader(archive.Bytes()[:512+100]), "spool", dir)
	if n != 1 || err != nil {
		t.Errorf("extractFiles() = %d, %v", n, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "00000001.spool")); err != nil || len(data) != 100 {
		t.Errorf("%d bytes, %v, want the 100 there are", len(data), err)
	}
}
