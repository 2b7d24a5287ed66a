package gitsrc_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// TestWhichEngine: the git command where one works, else go-git, and a line
// that says which and why. Not parallel: it changes the PATH.
func TestWhichEngine(t *testing.T) {
	o := newOrigin(t)
	url := serve(t, o.backend()) + "/repo.git"
	path := os.Getenv("PATH")
	for name, tc := range map[string]struct {
		engine gitsrc.Engine
		script string // a git of its own on the PATH; empty for none, "real" for the real one
		line   string
		fails  string
	}{
		"auto takes git":                {engine: gitsrc.EngineAuto, script: "real", line: "git engine: git 2."},
		"nothing said is auto":          {script: "real", line: "git engine: git 2."},
		"auto without git":              {line: "git engine: go-git, built in, because there is no git command on the PATH"},
		"auto with a broken git":        {script: "exit 127", line: "does not work"},
		"auto with something else":      {script: "echo hello there world", line: "is no git"},
		"auto with a git that is old":   {script: "echo git version 1.8.3.1", line: "git 1.8.3.1, older than"},
		"go-git although there is git":  {engine: gitsrc.EngineGoGit, script: "real", line: "as it was asked for"},
		"git":                           {engine: gitsrc.EngineGit, script: "real", line: "as it was asked for"},
		"git where there is none":       {engine: gitsrc.EngineGit, fails: "there is no git command on the PATH. Use an image that has git"},
		"an engine that does not exist": {engine: "svn", script: "real", fails: "no git engine called svn"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			if tc.script != "real" {
				t.Setenv("PATH", bin)
			} else {
				t.Setenv("PATH", path)
			}
			if tc.script != "" && tc.script != "real" {
				if err := os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\n"+tc.script+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			got, lines, err := engine{tc.engine}.checkout(t, gitsrc.Request{URL: url, Branch: "main"})
			if tc.fails != "" {
				wantKind(t, err, gitsrc.KindRequest, tc.fails)
				return
			}
			if err != nil || got.Commit != o.main {
				t.Errorf("Checkout() = %+v, %v", got, err)
			}
			if n := strings.Count(lines, "git engine: "); n != 1 || !strings.Contains(lines, tc.line) {
				t.Errorf("want one line with %q:\n%s", tc.line, lines)
			}
		})
	}
}

// TestGitIsNotLedAstray: neither the job's environment nor the configuration of
// its user changes what the git command does. Not parallel: it sets variables.
func TestGitIsNotLedAstray(t *testing.T) {
	o := newOrigin(t)
	home, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	hooks := filepath.Join(home, "hooks")
	write(t, hooks, "post-checkout", "#!/bin/sh\ntouch "+ran+"\n")
	if err := os.Chmod(filepath.Join(hooks, "post-checkout"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, home, ".gitconfig", "[core]\n\thooksPath = "+hooks+"\n\tautocrlf = true\n[filter \"evil\"]\n\tsmudge = touch "+ran+"\n\trequired = true\n")
	write(t, o.work, ".gitattributes", "*.txt filter=evil\n")
	o.git(t, o.work, "add", ".")
	o.git(t, o.work, "commit", "-qm", "Attributes")
	o.git(t, o.work, "push", "-q", o.dir, "feature/dev")
	t.Setenv("HOME", home)
	t.Setenv("GIT_DIR", filepath.Join(home, "elsewhere"))
	t.Setenv("GIT_INDEX_FILE", filepath.Join(home, "index"))
	t.Setenv("GIT_OBJECT_DIRECTORY", filepath.Join(home, "objects"))
	dir := filepath.Join(t.TempDir(), "src")
	url := serve(t, o.backend()) + "/repo.git"
	if _, lines, err := (engine{gitsrc.EngineGit}).checkout(t, gitsrc.Request{URL: url, Branch: "feature/dev", Dir: dir}); err != nil {
		t.Fatalf("Checkout: %v\n%s", err, lines)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "dev.txt")); string(b) != "dev\n" {
		t.Errorf("dev.txt = %q", b)
	}
	if _, err := os.Lstat(ran); err == nil {
		t.Error("a hook or a filter of the user ran")
	}
	for _, name := range []string{"elsewhere", "index", "objects"} {
		if _, err := os.Lstat(filepath.Join(home, name)); err == nil {
			t.Errorf("%s was used", name)
		}
	}
}

// TestGitIsToldNoSecret: what the git command gets to see, in arguments, in its
// environment and in files, holds no credential. Not parallel: it changes the
// PATH.
func TestGitIsToldNoSecret(t *testing.T) {
	o := newOrigin(t)
	command, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, basic("x-access-token", secret, o.backend())) + "/repo.git"
	bin, seen := t.TempDir(), filepath.Join(t.TempDir(), "seen")
	write(t, bin, "git", "#!/bin/sh\n{ echo \"$@\"; env; } >>"+seen+"\nexec "+command+" \"$@\"\n")
	if err := os.Chmod(filepath.Join(bin, "git"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("LONGSHORE_GIT_TOKEN", secret)
	dir := filepath.Join(t.TempDir(), "src")
	if _, lines, err := (engine{}).checkout(t, gitsrc.Request{URL: url, Branch: "main", Dir: dir, Auth: gitsrc.Auth{Token: secret}}); err != nil {
		t.Fatalf("Checkout: %v\n%s", err, lines)
	}
	text, err := os.ReadFile(seen)
	if err != nil || !strings.Contains(string(text), "index-pack --stdin") {
		t.Errorf("git was not looked at: %v\n%s", err, text)
	}
	noSecret(t, "what git sees", string(text))
	noSecretBelow(t, dir)
}
