package archtest_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const mod = "github.com/longshore-run/longshore/"

// banned says, for a package (or, with a trailing "...", all below it), which
// import paths may not be among its dependencies. These lines are the layers of
// docs/architecture.md.
var banned = map[string][]string{
	// The nouns depend on the standard library alone.
	"internal/api": {mod, "github.com/", "go.uber.org/", "gopkg.in/", "golang.org/"},
	// The agent's rules know no place where jobs live, and no server.
	"internal/poll":        {mod + "internal/backend", mod + "internal/control", mod + "internal/server", mod + "internal/store", "github.com/docker/", "k8s.io/"},
	"internal/runner":      {mod + "internal/backend/", mod + "internal/control", mod + "internal/server", mod + "internal/store", "github.com/docker/", "k8s.io/"},
	"internal/undelivered": {mod + "internal/backend", mod + "internal/runner", mod + "internal/executor", mod + "internal/control", mod + "internal/server", mod + "internal/store", "github.com/docker/", "k8s.io/"},
	// What runs inside a job stays small, and knows neither side's internals.
	"cmd/executor":      {mod + "internal/backend", mod + "internal/control", mod + "internal/server", mod + "internal/store", mod + "internal/config", "github.com/docker/", "k8s.io/", "modernc.org/", "github.com/prometheus/"},
	"internal/workflow": {mod + "internal/gitsrc", mod + "internal/deps", mod + "internal/api/client", "github.com/go-git/"},
	"internal/gitsrc":   {mod + "internal/workflow", mod + "internal/executor", mod + "internal/api/client"},
	// The cache's engine knows no package manager, its archives no network.
	"internal/cache":          {mod + "internal/workflow", mod + "internal/executor", mod + "internal/deps", mod + "internal/gitsrc", mod + "internal/blob", "github.com/go-git/", "gocloud.dev/"},
	"internal/cache/archive":  {mod + "internal/api", "net/http"},
	"internal/cache/transfer": {mod + "internal/api", mod + "internal/backend", mod + "internal/cache/archive", mod + "internal/deps", mod + "internal/executor", mod + "internal/gitsrc", mod + "internal/workflow"},
	"internal/deps":           {mod + "internal/workflow", mod + "internal/executor", mod + "internal/api/client", "github.com/go-git/"},
	// The control plane's rules know neither HTTP routes nor SQL.
	"internal/control": {mod + "internal/server", mod + "internal/store", mod + "internal/backend", mod + "internal/runner", "modernc.org/", "github.com/go-chi/", "github.com/docker/", "gocloud.dev"},
	"internal/server":  {mod + "internal/store", mod + "internal/backend", mod + "internal/runner", "modernc.org/", "github.com/docker/", "gocloud.dev"},
	"internal/store":   {mod + "internal/server", mod + "internal/backend", mod + "internal/runner", "github.com/docker/"},
	// An agent carries no server.
	"cmd/agent": {"gocloud.dev", mod + "internal/control", mod + "internal/server", mod + "internal/store", "modernc.org/", "github.com/go-git/"},
	// Buckets and the cache in them serve a server and an agent, and know neither.
	// The libraries of the clouds are for one program.
	"cmd/server":          {"gocloud.dev"},
	"cmd/bucket":          {mod + "internal/control", mod + "internal/server", mod + "internal/agent", mod + "internal/runner", mod + "internal/store"},
	"internal/blob":       {mod, "gocloud.dev"},
	"internal/blob/pipe":  {mod + "internal/control", mod + "internal/server", mod + "internal/agent", mod + "internal/runner", "gocloud.dev"},
	"internal/blob/cloud": {mod + "internal/control", mod + "internal/server", mod + "internal/agent", mod + "internal/runner"},
	"internal/cachestore": {mod + "internal/control", mod + "internal/server", mod + "internal/agent", mod + "internal/runner", "gocloud.dev"},
	"internal/jobcache":   {mod + "internal/control", mod + "internal/server", mod + "internal/agent", mod + "internal/runner", mod + "internal/backend", "gocloud.dev"},
	// Leaves.
	"internal/redact":     {mod},
	"internal/unpack":     {mod},
	"internal/stall":      {mod},
	"internal/gitcred":    {mod},
	"internal/knownhosts": {mod},
	"internal/mirror":     {mod + "cmd/", mod + "e2e/", mod + "internal/api", mod + "internal/gitsrc", mod + "internal/agent", "github.com/go-git/", "github.com/docker/"},
	"internal/lifecycle":  {mod},
	"internal/admin":      {mod},
	"internal/preflight":  {mod},
	"internal/notice":     {mod},
}

// direct says which import paths only the listed packages may import directly.
var direct = map[string][]string{
	"github.com/docker/docker":  {"internal/backend/docker"},
	"github.com/docker/cli":     {"internal/backend/docker"},
	"github.com/go-git/go-git":  {"internal/gitsrc"},
	"modernc.org/sqlite":        {"internal/store"},
	"database/sql":              {"internal/store"},
	"github.com/go-chi/chi":     {"internal/server"},
	"gocloud.dev":               {"internal/blob/cloud"},
	mod + "internal/blob/cloud": {"cmd/bucket"},
	mod + "internal/testkit":    {"internal/testkit"},
	"github.com/spf13/cobra":    {"cmd/agent", "cmd/executor", "cmd/server"},
	"github.com/knadh/koanf/v2": {"internal/config"},
}

func TestLayers(t *testing.T) {
	t.Parallel()
	for pkg, prefixes := range banned {
		t.Run(pkg, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./"+pkg)
			cmd.Dir = root(t)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("go list -deps %s: %v", pkg, err)
			}
			for dep := range strings.FieldsSeq(string(out)) {
				for _, prefix := range prefixes {
					if dep != mod+pkg && strings.HasPrefix(dep, prefix) {
						t.Errorf("%s must not depend on %s", pkg, dep)
					}
				}
			}
		})
	}
}

func TestWhoMayImportWhat(t *testing.T) {
	t.Parallel()
	eachFile(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "e2e/") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root(t), path), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		for _, spec := range file.Imports {
			imported := strings.Trim(spec.Path.Value, `"`)
			for prefix, allowed := range direct {
				if imported != prefix && !strings.HasPrefix(imported, prefix+"/") {
					continue
				}
				if !within(dir, allowed) {
					t.Errorf("%s imports %s, which is for %s alone", path, imported, strings.Join(allowed, ", "))
				}
			}
		}
	})
}

// TestEveryPackageIsDocumented: a package says what it is for, in one file.
func TestEveryPackageIsDocumented(t *testing.T) {
	t.Parallel()
	documented := map[string]int{}
	eachFile(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.Dir(path)
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root(t), path), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		documented[dir] += 0
		if file.Doc != nil {
			documented[dir]++
		}
	})
	for dir, n := range documented {
		if n != 1 {
			t.Errorf("%s: %d files have a package comment, want 1", dir, n)
		}
	}
}

// TestNoCatchAllPackages: packages are nouns of the domain.
func TestNoCatchAllPackages(t *testing.T) {
	t.Parallel()
	eachFile(t, func(path string) {
		switch name := filepath.Base(filepath.Dir(path)); name {
		case "util", "utils", "common", "helpers", "models", "misc", "shared", "types":
			t.Errorf("%s: %q says nothing about what is in it", path, name)
		}
	})
}

func within(dir string, allowed []string) bool {
	for _, a := range allowed {
		if dir == a || strings.HasPrefix(dir, a+"/") {
			return true
		}
	}
	return false
}

// eachFile calls f with the path, relative to the root, of every Go file that
// is written by hand.
func eachFile(t *testing.T, f func(path string)) {
	t.Helper()
	base := root(t)
	err := filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			switch {
			case rel == ".":
			case strings.HasPrefix(entry.Name(), "."), entry.Name() == "testdata", rel == "hack/tools", rel == "bin":
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(rel, ".go") && !strings.HasSuffix(rel, ".gen.go") {
			f(filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// root is the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}
