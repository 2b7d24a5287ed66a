package deps_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/longshore-run/longshore/internal/deps"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what Plan decides into testdata")

// TestPlan: each archive in testdata is a repository, and ends with what Plan
// decides for the project that its first line names.
func TestPlan(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			root, want := t.TempDir(), ""
			kept := archive.Files[:0]
			for _, f := range archive.Files {
				if f.Name == "want.txt" {
					want = string(f.Data)
					continue
				}
				kept = append(kept, f)
				write(t, filepath.Join(root, f.Name), string(f.Data))
			}
			project := strings.TrimSpace(strings.TrimPrefix(string(archive.Comment), "project:"))
			plan, err := deps.Plan(filepath.Join(root, project), root)
			got := strings.ReplaceAll(describe(plan, err), root, "ROOT")
			if *update {
				archive.Files = append(kept, txtar.File{Name: "want.txt", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Plan() (-want +got):\n%s", diff)
			}
		})
	}
}

func describe(plan deps.Installation, err error) string {
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "runtime: %s\nwhy: %s\n", plan.Runtime, plan.Why)
	for _, w := range plan.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	for _, c := range plan.Commands {
		fmt.Fprintf(&b, "run: %s\n  in %s, for %s\n", strings.Join(c.Args, " "), c.Dir, c.For)
		for _, e := range c.Env {
			fmt.Fprintf(&b, "  with %s\n", e)
		}
		if c.Unless != "" {
			fmt.Fprintf(&b, "  unless there is %s\n", c.Unless)
		}
	}
	if plan.Activate != "" {
		fmt.Fprintf(&b, "activate: %s\n", plan.Activate)
	}
	return b.String()
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
