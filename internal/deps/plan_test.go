package deps_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/longshore-run/longshore/internal/deps"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what Plan decides into testdata")

// TestPlan: each archive in testdata is a repository, and ends with what Plan
// decides for the project that its first line names, and with what Recipes does.
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
			root, want, wantRecipes := t.TempDir(), "", ""
			kept := archive.Files[:0]
			for _, f := range archive.Files {
				switch f.Name {
				case "want.txt":
					want = string(f.Data)
					continue
				case "recipes.txt":
					wantRecipes = string(f.Data)
					continue
				}
				kept = append(kept, f)
				write(t, filepath.Join(root, f.Name), string(f.Data))
			}
			project := strings.TrimSpace(strings.TrimPrefix(string(archive.Comment), "project:"))
			plan, err := deps.Plan(filepath.Join(root, project), root)
			got := strings.ReplaceAll(describe(plan, err), root, "ROOT")
			recipes, err := deps.Recipes(filepath.Join(root, project), root, place(t))
			gotRecipes := strings.ReplaceAll(describeRecipes(recipes, err), root, "ROOT")
			if *update {
				archive.Files = append(kept, txtar.File{Name: "want.txt", Data: []byte(got)}, txtar.File{Name: "recipes.txt", Data: []byte(gotRecipes)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Plan() (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wantRecipes, gotRecipes); diff != "" {
				t.Errorf("Recipes() (-want +got):\n%s", diff)
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

// place is one that looks the same everywhere, but for its python.
func place(t *testing.T, env ...string) deps.Place {
	t.Helper()
	bin := t.TempDir()
	python := filepath.Join(bin, "python3")
	write(t, python, "")
	if err := os.Chmod(python, 0o700); err != nil {
		t.Fatal(err)
	}
	return deps.Place{Env: append([]string{"HOME=/home/user", "PATH=" + bin}, env...), OS: "linux", Arch: "amd64", Version: "1.2.3"}
}

// withPath matches keys that a path is part of.
var withPath = regexp.MustCompile(`((?:pip|poetry)-installed-.*-)[0-9a-f]{64}`)

func describeRecipes(recipes []deps.Recipe, err error) string {
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var b strings.Builder
	for _, r := range recipes {
		fmt.Fprintf(&b, "%s: %s", r.Manager, withPath.ReplaceAllString(r.Key, "${1}SUM"))
		if r.Prefix != "" {
			fmt.Fprintf(&b, ", else %s*", r.Prefix)
		}
		if r.Otherwise {
			b.WriteString(", when there is nothing installed")
		}
		b.WriteString("\n")
		for _, f := range r.Folders {
			merge := ""
			if f.Merge {
				merge = " (merged)"
			}
			fmt.Fprintf(&b, "  %s: %s%s\n", f.Name, f.Path, merge)
		}
	}
	return b.String()
}
