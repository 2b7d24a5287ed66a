package gitsrc_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
	"github.com/longshore-run/longshore/internal/mirror"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRefs: every way to name a commit gives exactly that commit, with a .git
// that git itself takes for a normal one, from servers of every kind.
func TestRefs(t *testing.T) { eachEngine(t, testRefs) }

func testRefs(t *testing.T, on engine) {
	plain, filtering := newOrigin(t), newOrigin(t)
	filtering.git(t, filtering.dir, "config", "uploadpack.allowFilter", "true")
	for name, server := range map[string]struct {
		o       *origin
		handler http.Handler
		inside  bool // gives out a commit that no ref points to
		short   bool // finds what a short hash means without fetching all
	}{
		"version 2":              {o: plain, handler: plain.backend(), inside: true},
		"version 2 with filters": {o: filtering, handler: filtering.backend(), inside: true, short: true},
		"version 0":              {o: plain, handler: old(plain.backend())},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, url := server.o, serve(t, server.handler)+"/repo.git"
			for name, tc := range map[string]struct {
				branch, commit string
				want, ref      string
				head           string // what git symbolic-ref says; empty for detached
				many           bool   // more than one commit is there
			}{
				"a branch":                    {branch: "main", want: o.main, ref: "refs/heads/main", head: "refs/heads/main"},
				"a full branch name":          {branch: "refs/heads/main", want: o.main, ref: "refs/heads/main", head: "refs/heads/main"},
				"a branch with a slash":       {branch: "feature/dev", want: o.dev, ref: "refs/heads/feature/dev", head: "refs/heads/feature/dev"},
				"neither: the remote's HEAD":  {want: o.main, ref: "refs/heads/main", head: "refs/heads/main"},
				"an annotated tag":            {branch: "v1", want: o.main, ref: "refs/tags/v1"},
				"a full tag name":             {branch: "refs/tags/light", want: o.main, ref: "refs/tags/light"},
				"a pull request":              {branch: "refs/pull/7/head", want: o.pull, ref: "refs/pull/7/head"},
				"a merge request":             {branch: "refs/merge-requests/7/head", want: o.pull, ref: "refs/merge-requests/7/head"},
				"a pull request without refs": {branch: "pull/7/head", want: o.pull, ref: "refs/pull/7/head"},
				"a commit at a tip":           {commit: o.dev, want: o.dev},
				"an upper-case commit":        {commit: strings.ToUpper(o.dev), want: o.dev},
				"a commit inside":             {commit: o.first, want: o.first, many: !server.inside},
				"a short commit":              {commit: o.main[:10], want: o.main, many: !server.short},
				"a short commit inside":       {commit: o.first[:10], want: o.first, many: !server.short},
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					dir := filepath.Join(t.TempDir(), "a", "src")
					got, lines, err := on.checkout(t, gitsrc.Request{URL: url, Branch: tc.branch, Commit: tc.commit, Dir: dir})
					if err != nil {
						t.Fatalf("Checkout: %v\n%s", err, lines)
					}
					if got.Commit != tc.want || got.Ref != tc.ref || got.Author != "Ann Author" || got.Subject == "" || got.When.IsZero() {
						t.Errorf("Checkout() = %+v, want commit %s of %q", got, tc.want, tc.ref)
					}
					o.wantNormal(t, dir, url, tc.want, tc.head)
					n := o.git(t, dir, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)")
					if commits := strings.Count(n, "commit"); (commits > 1) != tc.many {
						t.Errorf("%d commits were fetched; want more than one: %t", commits, tc.many)
					}
					if tags := o.git(t, dir, "tag"); tags != strings.TrimPrefix(tc.ref, "refs/tags/") && tags != "" {
						t.Errorf("tags were fetched: %s", tags)
					}
				})
			}
		})
	}
}

// wantNormal checks that git takes the checkout in dir for a normal one.
func (o *origin) wantNormal(t *testing.T, dir, url, commit, head string) {
	t.Helper()
	if got := o.git(t, dir, "rev-parse", "HEAD"); got != commit {
		t.Errorf("git rev-parse HEAD = %s, want %s", got, commit)
	}
	if status := o.git(t, dir, "status", "--porcelain"); status != "" {
		t.Errorf("git status is not clean: %s", status)
	}
	symbolic, _ := os.ReadFile(filepath.Join(dir, ".git", "HEAD"))
	if want := "ref: " + head; head != "" && strings.TrimSpace(string(symbolic)) != want {
		t.Errorf("HEAD = %q, want %q", symbolic, want)
	} else if head == "" && strings.HasPrefix(string(symbolic), "ref:") {
		t.Errorf("HEAD = %q, want it detached", symbolic)
	}
	if remote := o.git(t, dir, "remote", "get-url", "origin"); remote != url {
		t.Errorf("origin = %s, want %s", remote, url)
	}
	o.git(t, dir, "fsck", "--strict")
}

// TestFiles: modes and links come out as git writes them.
func TestFiles(t *testing.T) { eachEngine(t, testFiles) }

func testFiles(t *testing.T, on engine) {
	o := newOrigin(t)
	dir := t.TempDir() // there already, and empty
	_, _, err := on.checkout(t, gitsrc.Request{URL: serve(t, o.backend()) + "/repo.git", Branch: "main", Dir: dir, RepoDir: "infra/prod"})
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "README.md")); string(b) != "second\n" {
		t.Errorf("README.md = %q", b)
	}
	if info, err := os.Stat(filepath.Join(dir, "run.sh")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("run.sh is not executable: %v, %v", info, err)
	}
	for name, want := range map[string]string{"outside": "/etc", "up": "../..", "inside": "infra/prod", "dangling": "nowhere"} {
		if to, err := os.Readlink(filepath.Join(dir, name)); err != nil || to != want {
			t.Errorf("link %s leads to %q (%v), want %q", name, to, err, want)
		}
	}
}

// TestServersThatGiveOutAnyCommit: no wider fetch where none is needed.
func TestServersThatGiveOutAnyCommit(t *testing.T) { eachEngine(t, testServersThatGiveOutAnyCommit) }

func testServersThatGiveOutAnyCommit(t *testing.T, on engine) {
	o := newOrigin(t)
	o.git(t, o.dir, "config", "uploadpack.allowAnySHA1InWant", "true")
	url := serve(t, old(o.backend())) + "/repo.git"
	dir := filepath.Join(t.TempDir(), "src")
	got, lines, err := on.checkout(t, gitsrc.Request{URL: url, Commit: o.first, Dir: dir})
	if err != nil || got.Commit != o.first {
		t.Fatalf("Checkout() = %+v, %v", got, err)
	}
	if strings.Contains(lines, "fetching all") {
		t.Errorf("a wider fetch was made: %s", lines)
	}
	if n := o.git(t, dir, "rev-list", "HEAD", "--count"); n != "1" {
		t.Errorf("%s commits were fetched, want 1", n)
	}
	_, _, err = on.checkout(t, gitsrc.Request{URL: url, Commit: strings.Repeat("ab", 20)})
	wantKind(t, err, gitsrc.KindRefUnknown, "not our ref")
}

// TestServerRefusesAnUnadvertisedCommit: a server that gives out tips only gets
// a wider fetch after it has refused.
func TestServerRefusesAnUnadvertisedCommit(t *testing.T) {
	eachEngine(t, testServerRefusesAnUnadvertisedCommit)
}

func testServerRefusesAnUnadvertisedCommit(t *testing.T, on engine) {
	o := newOrigin(t)
	o.git(t, o.dir, "config", "uploadpack.allowTipSHA1InWant", "true")
	private, public := keygen(t, filepath.Join(t.TempDir(), "key"), "ed25519", "")
	server := newSSHServer(t, o, public)
	got, lines, err := on.checkout(t, gitsrc.Request{URL: server.url, Commit: o.first, Auth: gitsrc.Auth{SSHKey: private}, KnownHosts: []string{server.knownHosts}})
	if err != nil || got.Commit != o.first {
		t.Fatalf("Checkout() = %+v, %v", got, err)
	}
	if !strings.Contains(lines, "fetching all branches") {
		t.Errorf("lines do not speak of the wider fetch: %s", lines)
	}
}

// TestAServerOfVersion2ThatGivesOutTipsOnly: other servers than git's own refuse,
// in the second version of the protocol, too, what no ref points to. The wider
// fetch then comes by itself, and with a mirror as well.
func TestAServerOfVersion2ThatGivesOutTipsOnly(t *testing.T) {
	eachEngine(t, testAServerOfVersion2ThatGivesOutTipsOnly)
}

func testAServerOfVersion2ThatGivesOutTipsOnly(t *testing.T, on engine) {
	o := newOrigin(t)
	o.git(t, o.dir, "config", "uploadpack.allowFilter", "true")
	missing := strings.Repeat("ab", 20)
	var asked atomic.Int32
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			o.backend().ServeHTTP(renamed{w}, r)
			return
		}
		body := peekBody(r)
		for _, hash := range []string{o.first, missing} {
			if strings.Contains(body, "want "+hash) {
				asked.Add(1)
				w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
				text := "ERR want " + hash + " not valid\n"
				fmt.Fprintf(w, "%04x%s", len(text)+4, text)
				return
			}
		}
		o.backend().ServeHTTP(w, r)
	})) + "/repo.git"
	for name, shelf := range map[string]*mirror.Shelf{"plain": nil, "with a mirror": {Dir: t.TempDir(), Out: t.TempDir()}} {
		asked.Store(0)
		dir := filepath.Join(t.TempDir(), "src")
		got, lines, err := on.checkout(t, gitsrc.Request{URL: url, Commit: o.first, Dir: dir, Mirror: shelf})
		if err != nil || got.Commit != o.first || asked.Load() == 0 || !strings.Contains(lines, "fetching all branches") {
			t.Fatalf("%s: Checkout() = %+v, %v, asked for %d times\n%s", name, got, err, asked.Load(), lines)
		}
		o.wantNormal(t, dir, url, o.first, "")
		_, _, err = on.checkout(t, gitsrc.Request{URL: url, Commit: missing, Mirror: shelf})
		wantKind(t, err, gitsrc.KindRefUnknown, "no branch and no tag of the repository reaches")
	}
}

// renamed makes the server another one than git's.
type renamed struct{ http.ResponseWriter }

func (w renamed) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(bytes.Replace(p, []byte("agent=git/"), []byte("agent=JGit"), 1))
	return n, err
}

// TestVersion2OverSSH: a server that lets the variable through speaks version 2.
func TestVersion2OverSSH(t *testing.T) { eachEngine(t, testVersion2OverSSH) }

func testVersion2OverSSH(t *testing.T, on engine) {
	o := newOrigin(t)
	private, public := keygen(t, filepath.Join(t.TempDir(), "key"), "ed25519", "")
	server := newSSHServer(t, o, public, "AcceptEnv GIT_PROTOCOL")
	dir := filepath.Join(t.TempDir(), "src")
	got, lines, err := on.checkout(t, gitsrc.Request{URL: server.url, Commit: o.first, Dir: dir, Auth: gitsrc.Auth{SSHKey: private}, KnownHosts: []string{server.knownHosts}})
	if err != nil || got.Commit != o.first {
		t.Fatalf("Checkout() = %+v, %v", got, err)
	}
	if strings.Contains(lines, "fetching all") {
		t.Errorf("a wider fetch was made: %s", lines)
	}
	o.wantNormal(t, dir, server.url, o.first, "")
}

func TestGitDaemon(t *testing.T) { eachEngine(t, testGitDaemon) }

func testGitDaemon(t *testing.T, on engine) {
	o := newOrigin(t)
	o.git(t, o.dir, "config", "uploadpack.allowFilter", "true")
	url := newDaemon(t, o)
	got, _, err := on.checkout(t, gitsrc.Request{URL: url, Branch: "v1"})
	if err != nil || got.Commit != o.main {
		t.Fatalf("Checkout() = %+v, %v", got, err)
	}
	// Two packs over one connection.
	dir := filepath.Join(t.TempDir(), "src")
	got, lines, err := on.checkout(t, gitsrc.Request{URL: url, Commit: o.first[:8], Dir: dir})
	if err != nil || got.Commit != o.first {
		t.Fatalf("Checkout() = %+v, %v\n%s", got, err, lines)
	}
	o.wantNormal(t, dir, url, o.first, "")
	_, _, err = on.checkout(t, gitsrc.Request{URL: strings.Replace(url, "repo.git", "other.git", 1)})
	wantKind(t, err, gitsrc.KindNotFound, "access denied")
}

// TestRepoDir: the project's folder is below the root of the repository.
func TestRepoDir(t *testing.T) { eachEngine(t, testRepoDir) }

func testRepoDir(t *testing.T, on engine) {
	o := newOrigin(t)
	url := serve(t, o.backend()) + "/repo.git"
	for name, tc := range map[string]struct {
		dir, want string // want is in the error; empty for none
	}{
		"a folder":                       {"infra/prod", ""},
		"with ./ and a slash at the end": {"./infra/prod/", ""},
		"the root":                       {".", ""},
		"a link inside":                  {"inside", ""},
		"dots inside":                    {"infra/../infra/prod", ""},
		"missing":                        {"infra/test", "Pulumi.yaml is in: infra/prod"},
		"a file":                         {"README.md", "is a file"},
		"a dangling link":                {"dangling", "has no folder"},
		"above":                          {"../x", "leaves the repository"},
		"above, hidden":                  {"infra/../../x", "leaves the repository"},
		"absolute":                       {"/infra", "is absolute"},
		"a link to an absolute path":     {"outside", "leads out of the repository"},
		"a link above":                   {"up", "leads out of the repository"},
		"git's own":                      {".git/hooks", "git's own directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "src")
			_, _, err := on.checkout(t, gitsrc.Request{URL: url, Branch: "main", RepoDir: tc.dir, Dir: dir})
			if tc.want == "" {
				if err != nil {
					t.Errorf("Checkout: %v", err)
				}
				return
			}
			wantKind(t, err, gitsrc.KindPath, tc.want)
			if _, err := os.Lstat(dir); !os.IsNotExist(err) {
				t.Errorf("%s was left behind: %v", dir, err)
			}
		})
	}
}

// TestDirIsLeftAlone: what is in the work directory is never touched.
func TestDirIsLeftAlone(t *testing.T) { eachEngine(t, testDirIsLeftAlone) }

func testDirIsLeftAlone(t *testing.T, on engine) {
	dir := t.TempDir()
	write(t, dir, "mine.txt", "mine")
	_, _, err := on.checkout(t, gitsrc.Request{URL: "https://127.0.0.1:1/x/y", Dir: dir})
	wantKind(t, err, gitsrc.KindDir, "is not empty")
	if _, err := os.Stat(filepath.Join(dir, "mine.txt")); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "mine.txt")
	_, _, err = on.checkout(t, gitsrc.Request{URL: "https://127.0.0.1:1/x/y", Dir: file})
	wantKind(t, err, gitsrc.KindDir, "cannot be used")
}

// TestLift: the folder of a template becomes the whole of the directory.
func TestLift(t *testing.T) { eachEngine(t, testLift) }

func testLift(t *testing.T, on engine) {
	o := newOrigin(t)
	url := serve(t, o.backend()) + "/repo.git"
	for _, folder := range []string{"infra/prod", "inside"} {
		around := t.TempDir()
		dir := filepath.Join(around, "src")
		if _, lines, err := on.checkout(t, gitsrc.Request{URL: url, RepoDir: folder, Lift: true, Dir: dir}); err != nil {
			t.Fatalf("Checkout: %v\n%s", err, lines)
		}
		for place, want := range map[string]string{dir: "Pulumi.yaml", around: "src"} {
			if entries, err := os.ReadDir(place); err != nil || len(entries) != 1 || entries[0].Name() != want {
				t.Errorf("%s: %s holds %v (%v), want %s", folder, place, entries, err, want)
			}
		}
	}
}
