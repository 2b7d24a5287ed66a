package cache_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/cache"
	"github.com/longshore-run/longshore/internal/testkit"
)

// smallDisk is a directory with room for 4 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	testkit.Need(t, "root")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestDiskFull: nothing is left of what did not fit, and the entry is not to blame.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	small, s := smallDisk(t), newSite(t)
	dir := workspace(t)
	write(t, dir, "node_modules/large", noise(5<<20))
	r := recipe(dir)
	c := s.cache(t, func(o *cache.Options) { o.Dir = small })
	is(t, c.Save(t.Context(), r, cache.Outcome{}), cache.Skipped, "no space left on device")
	is(t, s.cache(t).Save(t.Context(), r, cache.Outcome{}), cache.Saved, "")
	write(t, small, "node_modules/mine", "x")
	before := files(t, small)
	is(t, c.Restore(t.Context(), recipe(small)), cache.Miss, "no space left on device")
	if diff := cmp.Diff(before, files(t, small)); diff != "" {
		t.Errorf("afterwards (-before +after):\n%s", diff)
	}
	if len(s.dropped) > 0 {
		t.Errorf("dropped %v", s.dropped)
	}
}

// TestFolderOnADiskOfItsOwn: what is mounted cannot be replaced, only filled.
func TestFolderOnADiskOfItsOwn(t *testing.T) {
	t.Parallel()
	small, s, from := smallDisk(t), newSite(t), t.TempDir()
	write(t, from, "npm/a/b", "text")
	r := cache.Recipe{Manager: "npm", Key: "npm-1", Folders: []cache.Folder{{Name: "npm", Path: filepath.Join(from, "npm")}}}
	c := s.cache(t)
	is(t, c.Save(t.Context(), r, cache.Outcome{}), cache.Saved, "")
	write(t, small, "old", "x")
	r.Folders[0].Path = small
	is(t, c.Restore(t.Context(), r), cache.Hit, "")
	if diff := cmp.Diff(map[string]string{"a/": "", "a/b": "text"}, files(t, small)); diff != "" {
		t.Error(diff)
	}
}
