package gitsrc_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5"
	"github.com/longshore-run/longshore/internal/gitsrc"
)

// wantReadByGit compares what git commands print.
func (o *origin) wantReadByGit(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	for command, text := range want {
		if got := o.git(t, dir, strings.Fields(command)...); got != text {
			t.Errorf("git %s: %q, want %q", command, got, text)
		}
	}
}

// TestLaterReaders: what looks for a repository by go-git later in the job, as
// the Pulumi CLI does for git.head and vcs.*, finds it from the project's folder:
// HEAD, detached or not, its commit, and where it came from; and so does git
// itself.
func TestLaterReaders(t *testing.T) { eachEngine(t, testLaterReaders) }

func testLaterReaders(t *testing.T, on engine) {
	o := newMonorepo(t)
	url := serve(t, o.backend()) + "/repo.git"
	lib := o.publish(t, "lib.git", map[string]string{"lib.txt": "lib\n"}, nil)
	with := strings.TrimSuffix(url, "repo.git") + "with.git"
	o.publish(t, "with.git", map[string]string{".gitmodules": module("lib", "../lib.git"), "p/Pulumi.yaml": "name: p\n"}, map[string]string{"lib": lib})
	for name, tc := range map[string]struct {
		r       gitsrc.Request
		head    string
		subject string
	}{
		"a branch":           {gitsrc.Request{URL: url, Branch: "feature/dev", RepoDir: "infra/prod"}, "refs/heads/feature/dev", "Develop\n"},
		"a commit":           {gitsrc.Request{URL: url, Commit: o.dev, RepoDir: "infra/prod"}, "HEAD", "Develop\n"},
		"a tag":              {gitsrc.Request{URL: url, Branch: "v1", RepoDir: "infra/prod"}, "HEAD", "Second, with a project\n\nand a body\n"},
		"some of many files": {gitsrc.Request{URL: url, Branch: "main", RepoDir: "apps/alone"}, "refs/heads/main", "Many\n"},
		"with a submodule":   {gitsrc.Request{URL: with, Branch: "main", RepoDir: "p"}, "refs/heads/main", "Publish with.git\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.r.Dir = filepath.Join(t.TempDir(), "src")
			got, lines, err := on.checkout(t, tc.r)
			if err != nil {
				t.Fatalf("Checkout: %v\n%s", err, lines)
			}
			repo, err := git.PlainOpenWithOptions(filepath.Join(tc.r.Dir, tc.r.RepoDir), &git.PlainOpenOptions{DetectDotGit: true})
			if err != nil {
				t.Fatal(err)
			}
			head, err := repo.Head()
			if err != nil {
				t.Fatal(err)
			}
			if head.Hash().String() != got.Commit || head.Name().String() != tc.head {
				t.Errorf("HEAD = %s, want %s of %s", head, got.Commit, tc.head)
			}
			commit, err := repo.CommitObject(head.Hash())
			if err != nil {
				t.Fatal(err)
			}
			if commit.Message != tc.subject || commit.Author.Name != "Ann Author" || commit.Committer.Email != "ann@example.com" {
				t.Errorf("commit = %s", commit)
			}
			remote, err := repo.Remote("origin")
			if err != nil {
				t.Fatal(err)
			}
			if urls := remote.Config().URLs; len(urls) != 1 || urls[0] != tc.r.URL {
				t.Errorf("origin = %q, want %s", urls, tc.r.URL)
			}
			o.wantReadByGit(t, filepath.Join(tc.r.Dir, tc.r.RepoDir), map[string]string{
				"rev-parse HEAD":                  got.Commit,
				"rev-parse --abbrev-ref HEAD":     strings.TrimPrefix(tc.head, "refs/heads/"),
				"log -1 --format=%an,%ae,%cn,%ce": "Ann Author,ann@example.com,Ann Author,ann@example.com",
				"log -1 --format=%B":              strings.TrimSpace(tc.subject),
				"status --porcelain -z":           "",
				"config --get remote.origin.url":  tc.r.URL,
				"rev-parse --show-prefix":         tc.r.RepoDir + "/",
				"diff HEAD --stat":                "",
			})
		})
	}
}
