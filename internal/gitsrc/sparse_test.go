package gitsrc_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// newMonorepo is a repository of many folders, whose main branch has them and
// the given files.
func newMonorepo(t *testing.T) *origin {
	t.Helper()
	o := newOrigin(t)
	for i := range 1100 {
		write(t, o.work, fmt.Sprintf("rest/%d/%d.txt", i%20, i), fmt.Sprintf("file %d\n", i))
	}
	for name, text := range map[string]string{
		"apps/alone/Pulumi.yaml":      "name: alone\nruntime: yaml\n",
		"apps/alone/deep/down.txt":    "down ... ./deep\n",
		"apps/README.md":              "beside the way\n",
		"apps/alone2/secret.txt":      "begins alike\n",
		"apps/main/Pulumi.yaml":       "name: main\nruntime: nodejs\nmain: ../code\n",
		"apps/code/index.ts":          "import { a } from '../../shared/util'\n",
		"shared/util.ts":              "export const a = require('./far/../../far/away')\n",
		"far/away/index.js":           "module.exports = 1\n",
		"apps/linked/Pulumi.yaml":     "name: linked\nruntime: yaml\n",
		"apps/joined/sub/Pulumi.yaml": "name: sub\nruntime: nodejs\n",
		"apps/joined/package.json":    "{\"workspaces\": [\"*\"]}\n",
		"apps/climber/Pulumi.yaml":    "name: climber\nruntime: nodejs\n",
		"apps/climber/index.js":       "require(path.join(__dirname, '..', 'alone'))\n",
		"apps/above/Pulumi.yaml":      "name: above\nruntime: nodejs\nmain: ../\n",
		"apps/odd [x]*/Pulumi.yaml":   "name: odd\nruntime: yaml\n",
		"apps/binary/Pulumi.yaml":     "name: binary\nruntime: yaml\n",
		"apps/binary/data":            "\x00../../far/away\n",
		"apps/ba\\ck/Pulumi.yaml":     "name: back\nruntime: yaml\n",
		"apps/windows/app.csproj":     `<ProjectReference Include="..\..\far\away\x.csproj" />`,
		"apps/windows/Pulumi.yaml":    "name: windows\nruntime: dotnet\n",
		"apps/nowhere/Pulumi.yaml":    "name: nowhere\nruntime: yaml\n# ../../../../etc ../missing/thing\n",
	} {
		write(t, o.work, name, text)
	}
	for name, to := range map[string]string{"apps/linked/lib": "../../shared", "apps/byname": "alone"} {
		if err := os.Symlink(to, filepath.Join(o.work, name)); err != nil {
			t.Fatal(err)
		}
	}
	o.git(t, o.work, "checkout", "-q", "main")
	o.git(t, o.work, "add", ".")
	o.git(t, o.work, "commit", "-qm", "Many")
	o.main = o.git(t, o.work, "rev-parse", "HEAD")
	o.git(t, o.work, "push", "-q", o.dir, "main")
	o.git(t, o.dir, "config", "uploadpack.allowFilter", "true")
	return o
}

// TestSparse: of a large repository only what a project seems to need is
// fetched and written, and git takes what is there for a normal checkout.
func TestSparse(t *testing.T) {
	t.Parallel()
	o := newMonorepo(t)
	url := serve(t, o.backend()) + "/repo.git"
	for name, tc := range map[string]struct {
		dir       string
		full      bool
		url       string
		there     []string // beside the project
		all       string   // why everything is there; empty when it is not
		onlyGoGit bool
	}{
		"a project by itself":                {dir: "apps/alone", there: []string{"README.md", "apps/README.md", "apps/alone/deep/down.txt"}},
		"with a slash at the end":            {dir: "./apps/alone/"},
		"main leads out, and on from there":  {dir: "apps/main", there: []string{"apps/code/index.ts", "shared/util.ts", "far/away/index.js"}},
		"a link leads out":                   {dir: "apps/linked", there: []string{"shared/util.ts", "far/away/index.js"}},
		"a path with backslashes leads out":  {dir: "apps/windows", there: []string{"far/away/index.js"}},
		"a name with special characters":     {dir: "apps/odd [x]*"},
		"a name with a backslash":            {dir: `apps/ba\ck`},
		"what is binary is not looked into":  {dir: "apps/binary"},
		"paths that lead nowhere":            {dir: "apps/nowhere"},
		"a file that joins folders":          {dir: "apps/joined/sub", all: "apps/joined/package.json may join"},
		"a program that names what is above": {dir: "apps/climber", all: "names the folder above"},
		"main is the folder above":           {dir: "apps/above", all: "leads to a folder above the project"},
		"the folder is a link":               {dir: "apps/byname", all: "not a plain folder"},
		"all is asked for":                   {dir: "apps/alone", full: true, all: "checked out"},
		"the root":                           {dir: ".", all: "checked out"},
		"a server that leaves nothing out":   {dir: "infra/prod", url: serve(t, newOrigin(t).backend()) + "/repo.git", all: "checked out"},
		"an old server":                      {dir: "apps/alone", url: serve(t, old(o.backend())) + "/repo.git", all: "checked out"},
		"a server that refuses single files": {dir: "apps/alone", url: serve(t, noFiles(o.backend())) + "/repo.git", all: "checked out"},
		"go-git":                             {dir: "apps/alone", all: "checked out", onlyGoGit: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on, from := engine{gitsrc.EngineGit}, url
			if tc.onlyGoGit {
				on.Engine = gitsrc.EngineGoGit
			}
			if tc.url != "" {
				from = tc.url
			}
			dir := filepath.Join(t.TempDir(), "src")
			got, lines, err := on.checkout(t, gitsrc.Request{URL: from, Branch: "main", RepoDir: tc.dir, Full: tc.full, Dir: dir})
			if err != nil {
				t.Fatalf("Checkout: %v\n%s", err, lines)
			}
			if tc.url == "" && got.Commit != o.main {
				t.Errorf("commit = %s, want %s", got.Commit, o.main)
			}
			for _, file := range append(tc.there, tc.dir) {
				if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
					t.Error(err)
				}
			}
			o.wantNormal(t, dir, from, got.Commit, "refs/heads/main")
			if tc.all != "" {
				if !strings.Contains(lines, tc.all) || strings.Contains(lines, "only ") {
					t.Errorf("want %q in: %s", tc.all, lines)
				}
				if sparse := o.git(t, dir, "ls-files", "-t"); strings.Contains(sparse, "S ") {
					t.Error("files are left out")
				}
				return
			}
			if !strings.Contains(lines, "source.sparse: false gets all") {
				t.Errorf("lines = %s", lines)
			}
			for _, file := range []string{"rest", "apps/alone2", "apps/climber"} {
				if _, err := os.Lstat(filepath.Join(dir, file)); err == nil {
					t.Errorf("%s was written", file)
				}
			}
			objects := o.git(t, dir, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)")
			if n := strings.Count(objects, "blob"); n > 40 {
				t.Errorf("%d files were fetched", n)
			}
		})
	}
	_, _, err := engine{gitsrc.EngineGit}.checkout(t, gitsrc.Request{URL: url, Branch: "main", RepoDir: "apps/missing"})
	wantKind(t, err, gitsrc.KindPath, "Pulumi.yaml is in: ")
}

// noFiles is a server that leaves files out and then does not give them out.
func noFiles(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body := peekBody(r); strings.Contains(body, "want ") && !strings.Contains(body, "deepen ") {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			fmt.Fprint(w, "0018ERR want is not ours")
			return
		}
		h.ServeHTTP(w, r)
	})
}
