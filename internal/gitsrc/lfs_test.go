package gitsrc_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/e2e/gitserver"
	"github.com/longshore-run/longshore/internal/gitsrc"
	"github.com/longshore-run/longshore/internal/testkit"
)

// newLFS is a repository whose large files were made and pushed by Git LFS
// itself, and the server that has them.
func newLFS(t *testing.T) (o *origin, objects string, server http.Handler) {
	t.Helper()
	testkit.Need(t, "git-lfs")
	o, objects = newOrigin(t), t.TempDir()
	server = gitserver.LFS(objects, o.backend())
	lfs := []string{"-c", "filter.lfs.clean=git-lfs clean -- %f", "-c", "filter.lfs.smudge=git-lfs smudge -- %f", "-c", "filter.lfs.required=true"}
	o.git(t, o.work, "checkout", "-q", "main")
	write(t, o.work, ".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\ninfra/plain.bin -filter\n")
	write(t, o.work, "big.bin", strings.Repeat("large\n", 10000))
	write(t, o.work, "infra/prod/tool.bin", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(o.work, "infra/prod/tool.bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.git(t, o.work, append(lfs, "add", ".")...)
	o.git(t, o.work, append(lfs, "commit", "-qm", "Large files")...)
	o.git(t, o.work, "remote", "add", "origin", o.dir)
	o.git(t, o.work, "-c", "lfs.url="+serve(t, server)+"/repo.git/info/lfs", "-c", "lfs.locksverify=false", "lfs", "push", "--all", "origin")
	write(t, o.work, "notes.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:"+strings.Repeat("ab", 32)+"\nsize 5\n") // looks like one
	o.git(t, o.work, append(lfs, "add", ".")...)
	o.git(t, o.work, append(lfs, "commit", "-qm", "A file that looks like one of those")...)
	o.main = o.git(t, o.work, "rev-parse", "HEAD")
	o.git(t, o.work, "push", "-q", "--no-verify", o.dir, "main")
	if stored, _ := filepath.Glob(objects + "/*"); len(stored) != 2 {
		t.Fatalf("%d objects were pushed, want 2", len(stored))
	}
	return o, objects, server
}

// TestLFS: large files are there, whole, with the modes that they should have.
func TestLFS(t *testing.T) { eachEngine(t, testLFS) }

func testLFS(t *testing.T, on engine) {
	o, objects, server := newLFS(t)
	tokens := gitsrc.Auth{Token: secret}
	private := serve(t, guarded("x-access-token", server))
	lost := t.TempDir()
	damaged := t.TempDir()
	stored, _ := filepath.Glob(objects + "/*")
	for _, path := range stored {
		content, _ := os.ReadFile(path)
		write(t, damaged, filepath.Base(path), strings.ToUpper(string(content)))
	}
	var failed int
	shaky := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failed++; strings.HasPrefix(r.URL.Path, "/lfs-objects/") && failed%2 == 0 {
			hangUp(w, r)
			return
		}
		server.ServeHTTP(w, r)
	})
	for name, tc := range map[string]struct {
		server  http.Handler
		leave   bool
		kind    gitsrc.Kind
		fails   string
		pointer bool
	}{
		"with the repository's token":   {},
		"left as they are":              {leave: true, pointer: true},
		"a connection that breaks":      {server: lock(shaky)},
		"a server without large files":  {server: o.backend(), kind: gitsrc.KindNotFound, fails: "the contents of big.bin, a file of Git LFS, cannot be had"},
		"an object that was not pushed": {server: gitserver.LFS(lost, o.backend()), kind: gitsrc.KindNotFound, fails: "git lfs push"},
		"an object that is damaged":     {server: gitserver.LFS(damaged, o.backend()), kind: gitsrc.KindServer, fails: "not the object that was asked for"},
		"a server that refuses":         {server: refuseLFS(server), kind: gitsrc.KindForbidden, fails: "scope"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := private
			if tc.server != nil {
				url = serve(t, guarded("x-access-token", tc.server))
			}
			dir := filepath.Join(t.TempDir(), "src")
			got, lines, err := on.checkout(t, gitsrc.Request{URL: url + "/repo.git", Branch: "main", Dir: dir, Auth: tokens, NoLFS: tc.leave})
			noSecret(t, "progress", lines)
			if tc.kind != "" {
				wantKind(t, err, tc.kind, tc.fails, "source.lfs: false")
				return
			}
			if err != nil || got.Commit != o.main {
				t.Fatalf("Checkout() = %+v, %v\n%s", got, err, lines)
			}
			noSecretBelow(t, dir)
			big, _ := os.ReadFile(filepath.Join(dir, "big.bin"))
			if pointer := bytes.HasPrefix(big, []byte("version https://git-lfs")); pointer != tc.pointer || !pointer && len(big) != 60000 {
				t.Errorf("big.bin has %d bytes: %.40q", len(big), big)
			}
			if info, err := os.Stat(filepath.Join(dir, "infra/prod/tool.bin")); err != nil || info.Mode().Perm()&0o100 == 0 {
				t.Errorf("tool.bin: %v, %v", info, err)
			}
			if notes, _ := os.ReadFile(filepath.Join(dir, "notes.txt")); !bytes.HasPrefix(notes, []byte("version")) {
				t.Errorf("notes.txt = %q", notes)
			}
			if tc.pointer {
				return
			}
			// To git with Git LFS nothing is changed.
			status := o.git(t, dir, "-c", "filter.lfs.clean=git-lfs clean -- %f", "-c", "filter.lfs.required=true", "status", "--porcelain")
			if status != "" {
				t.Errorf("git status = %s", status)
			}
		})
	}
}

// guarded wants the secret for everything but the objects, which have a token
// of their own.
func guarded(user string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/lfs-objects/") {
			h.ServeHTTP(w, r)
			return
		}
		basic(user, secret, h).ServeHTTP(w, r)
	})
}

// lock lets one request at a time through.
func lock(h http.Handler) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn <- struct{}{}
		defer func() { <-turn }()
		h.ServeHTTP(w, r)
	})
}

func refuseLFS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/objects/batch") {
			w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"message": "the token lacks a scope"}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// TestLFSOverSSH: the server says over SSH where its large files are, and what
// to say there.
func TestLFSOverSSH(t *testing.T) { eachEngine(t, testLFSOverSSH) }

func testLFSOverSSH(t *testing.T, on engine) {
	o, _, server := newLFS(t)
	over := serve(t, guarded("lfs", server))
	private, public := keygen(t, filepath.Join(t.TempDir(), "key"), "ed25519", "")
	bin := t.TempDir()
	header, err := exec.CommandContext(context.Background(), "sh", "-c", "printf %s 'lfs:"+secret+"' | base64").Output()
	if err != nil {
		t.Fatal(err)
	}
	write(t, bin, "git-lfs-authenticate", fmt.Sprintf("#!/bin/sh\ncat <<END\n{\"href\": \"%s/repo.git/info/lfs\", \"header\": {\"Authorization\": \"Basic %s\"}}\nEND\n", over, bytes.TrimSpace(header)))
	if err := os.Chmod(filepath.Join(bin, "git-lfs-authenticate"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"a server with large files": bin + ":/usr/bin:/bin", "a server without": "/usr/bin:/bin"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sshd := newSSHServer(t, o, public, "SetEnv PATH="+path)
			dir := filepath.Join(t.TempDir(), "src")
			_, lines, err := on.checkout(t, gitsrc.Request{URL: sshd.url, Branch: "main", Dir: dir, Auth: gitsrc.Auth{SSHKey: private}, KnownHosts: []string{sshd.knownHosts}})
			if !strings.HasPrefix(path, bin) {
				wantKind(t, err, gitsrc.KindServer, "has no Git LFS over SSH")
				return
			}
			if err != nil {
				t.Fatalf("Checkout: %v\n%s\n%s", err, lines, sshd.log.String())
			}
			noSecretBelow(t, dir)
			if big, _ := os.ReadFile(filepath.Join(dir, "big.bin")); len(big) != 60000 {
				t.Errorf("big.bin has %d bytes", len(big))
			}
		})
	}
}
