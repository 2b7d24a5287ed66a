package gitsrc_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// publish makes the repository name beside o, of the given files and, by path,
// submodules, and returns its commit.
func (o *origin) publish(t *testing.T, name string, files, modules map[string]string) string {
	t.Helper()
	work, bare := t.TempDir(), filepath.Join(filepath.Dir(o.dir), name)
	o.git(t, work, "init", "-q", "-b", "main")
	for file, text := range files {
		write(t, work, file, text)
	}
	o.git(t, work, "add", ".")
	for path, hash := range modules {
		o.git(t, work, "update-index", "--add", "--cacheinfo", "160000,"+hash+","+path)
	}
	o.git(t, work, "commit", "-qm", "Publish "+name)
	o.git(t, work, "clone", "-q", "--bare", work, bare)
	return o.git(t, work, "rev-parse", "HEAD")
}

func module(path, url string) string {
	return "[submodule \"the " + path + "\"]\n\tpath = " + path + "\n\turl = " + url + "\n"
}

// TestSubmodules: what a commit has of other repositories is got, too, with
// credentials only where they belong.
func TestSubmodules(t *testing.T) { eachEngine(t, testSubmodules) }

func testSubmodules(t *testing.T, on engine) {
	o := newOrigin(t)
	var leaked lockedBuffer
	elsewhere := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Write([]byte(r.Header.Get("Authorization")))
		o.backend().ServeHTTP(w, r)
	}))
	private := serve(t, basic("x-access-token", secret, o.backend()))
	nested := o.publish(t, "nested.git", map[string]string{"nested.txt": "nested\n"}, nil)
	lib := o.publish(t, "lib.git", map[string]string{"lib.txt": "lib\n", ".gitmodules": module("in/side", "../nested.git")}, map[string]string{"in/side": nested})
	for name, tc := range map[string]struct {
		url   string // of the submodule
		hash  string
		none  bool
		fails string
		kind  gitsrc.Kind
		line  string
	}{
		"a relative URL":             {url: "../lib.git"},
		"a URL of the same server":   {url: private + "/lib.git"},
		"an SSH URL of that host":    {url: "git@127.0.0.1:lib.git"},
		"on another server":          {url: elsewhere + "/lib.git"},
		"left out":                   {url: "../lib.git", none: true, line: "source.submodules is false"},
		"not named in .gitmodules":   {line: ".gitmodules does not say where submodule vendor/lib"},
		"a commit that is not there": {url: "../lib.git", hash: strings.Repeat("ab", 20), kind: gitsrc.KindRefUnknown, fails: "get submodule vendor/lib from " + private + "/lib.git"},
		"a repository that is not":   {url: "../gone.git", kind: gitsrc.KindNotFound, fails: "source.submodules: false leaves"},
		"a local path":               {url: "file:///etc", kind: gitsrc.KindRequest, fails: "get submodule vendor/lib: repository URLs that begin with file"},
		"a command":                  {url: "ext::sh -c touch% /tmp/x", kind: gitsrc.KindRequest, fails: "get submodule vendor/lib"},
		"an option":                  {url: "--upload-pack=touch", kind: gitsrc.KindRequest, fails: "get submodule vendor/lib"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{"main.txt": "main\n"}
			if tc.url != "" {
				files[".gitmodules"] = module("vendor/lib", tc.url)
			}
			hash := lib
			if tc.hash != "" {
				hash = tc.hash
			}
			repository := strings.NewReplacer(" ", "-", ".", "").Replace(name) + "-" + string(on.Engine) + ".git"
			commit := o.publish(t, repository, files, map[string]string{"vendor/lib": hash})
			dir := filepath.Join(t.TempDir(), "src")
			request := gitsrc.Request{URL: private + "/" + repository, Branch: "main", Dir: dir, Auth: gitsrc.Auth{Token: secret}, NoSubmodules: tc.none}
			got, lines, err := on.checkout(t, request)
			noSecret(t, "progress", lines)
			if tc.kind != "" {
				wantKind(t, err, tc.kind, tc.fails)
				if _, err := os.Lstat(dir); !os.IsNotExist(err) {
					t.Errorf("%s was left behind", dir)
				}
				return
			}
			if err != nil || got.Commit != commit {
				t.Fatalf("Checkout() = %+v, %v\n%s", got, err, lines)
			}
			noSecretBelow(t, dir)
			if !strings.Contains(lines, tc.line) {
				t.Errorf("want %q in %s", tc.line, lines)
			}
			_, missing := os.Stat(filepath.Join(dir, "vendor/lib/in/side/nested.txt"))
			if empty := tc.line != ""; empty != (missing != nil) {
				t.Errorf("the submodule of the submodule: %v", missing)
			} else if empty {
				return
			}
			o.wantNormal(t, dir, request.URL, commit, "refs/heads/main")
			if status := o.git(t, dir, "submodule", "status", "--recursive"); strings.ContainsAny(status, "-+") && !strings.HasPrefix(status, lib) {
				t.Errorf("git submodule status: %s", status)
			}
			if !strings.Contains(lines, "submodule vendor/lib/in/side: checked out "+nested) {
				t.Errorf("lines = %s", lines)
			}
		})
	}
	t.Cleanup(func() {
		if s := leaked.String(); s != "" {
			t.Errorf("another server was given credentials: %s", s)
		}
	})
}
