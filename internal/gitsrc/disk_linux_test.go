package gitsrc_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
	"github.com/longshore-run/longshore/internal/testkit"
)

// TestDiskFull checks out more than a small file system of its own can hold.
func TestDiskFull(t *testing.T) { eachEngine(t, testDiskFull) }

func testDiskFull(t *testing.T, on engine) {
	testkit.Need(t, "root")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o := newOrigin(t)
	noise := make([]byte, 1<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	write(t, o.work, "noise", string(noise))
	o.git(t, o.work, "add", ".")
	o.git(t, o.work, "commit", "-qm", "Noise")
	o.git(t, o.work, "push", "-q", o.dir, "--all")
	src := filepath.Join(dir, "src")
	_, _, err := on.checkout(t, gitsrc.Request{URL: serve(t, o.backend()) + "/repo.git", Branch: "feature/dev", Dir: src})
	wantKind(t, err, gitsrc.KindDiskFull, "the disk of the job is full")
	if _, err := os.Lstat(src); !os.IsNotExist(err) {
		t.Errorf("%s was left behind", src)
	}
}
