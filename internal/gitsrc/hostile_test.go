package gitsrc_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// TestHostileTrees: a repository whose trees git would not have made writes
// nothing outside of the work directory and nothing into its .git.
func TestHostileTrees(t *testing.T) { eachEngine(t, testHostileTrees) }

func testHostileTrees(t *testing.T, on engine) {
	o := newOrigin(t)
	outside := t.TempDir()
	object := func(t *testing.T, kind string, content []byte) string {
		t.Helper()
		cmd := exec.CommandContext(context.Background(), "git", "hash-object", "-t", kind, "-w", "--stdin", "--literally")
		cmd.Dir, cmd.Stdin = o.dir, bytes.NewReader(content)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	entry := func(mode, name, hash string) string {
		raw, _ := hex.DecodeString(hash)
		return mode + " " + name + "\x00" + string(raw)
	}
	evil := object(t, "blob", []byte("evil\n"))
	below := object(t, "tree", []byte(entry("100755", "evil", evil)))
	for name, tree := range map[string]string{
		"a link and a folder of one name": entry("120000", "a", object(t, "blob", []byte(outside))) + entry("40000", "a", below),
		"a folder called ..":              entry("40000", "..", below),
		"a file with slashes in its name": entry("100644", "../evil", evil),
		"a .git":                          entry("40000", ".git", below),
		"a .GIT":                          entry("40000", ".GIT", below),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			commit := o.git(t, o.dir, "commit-tree", "-m", "Hostile", object(t, "tree", []byte(tree)))
			branch := "hostile-" + commit[:8]
			o.git(t, o.dir, "update-ref", "refs/heads/"+branch, commit)
			around := t.TempDir()
			src := filepath.Join(around, "src")
			_, _, err := on.checkout(t, gitsrc.Request{URL: serve(t, o.backend()) + "/repo.git", Branch: branch, Dir: src})
			t.Logf("Checkout: %v", err)
			for _, path := range []string{filepath.Join(outside, "evil"), filepath.Join(around, "evil"), filepath.Join(src, ".git", "evil")} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s was written", path)
				}
			}
		})
	}
}
