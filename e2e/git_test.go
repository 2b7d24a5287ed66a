package e2e_test

import (
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/e2e/gitserver"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

// gitHost is a real git server with the repository yaml-stack.git.
type gitHost struct {
	base, root, commit string
}

func (g gitHost) url(repository string) string { return g.base + "/" + repository }

func serveGit(t *testing.T, check func(user, password string) bool) gitHost {
	t.Helper()
	testkit.Need(t, "git")
	root := t.TempDir()
	commit, err := gitserver.Publish(t.Context(), root, "yaml-stack.git", filepath.Join("..", "examples", "yaml-stack"))
	if err != nil {
		t.Fatal(err)
	}
	handler, err := gitserver.Handler(t.Context(), root, check)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return gitHost{base: server.URL, root: root, commit: commit}
}

// sshHost is a real sshd in front of the same repository.
type sshHost struct {
	*gitserver.SSH
	repository string // clone URL
	knownHosts string // path of a known_hosts file
}

func serveSSH(t *testing.T) sshHost {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	server, err := gitserver.StartSSH(t.Context(), testkit.Path(t, "sshd"), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	root := t.TempDir()
	if _, err := gitserver.Publish(t.Context(), root, "yaml-stack.git", filepath.Join("..", "examples", "yaml-stack")); err != nil {
		t.Fatal(err)
	}
	knownHosts := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(knownHosts, []byte(server.KnownHost+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return sshHost{SSH: server, repository: server.URL(me.Username, filepath.Join(root, "yaml-stack.git")), knownHosts: knownHosts}
}

func TestAPrivateRepositoryIsCloned(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-of-the-repository"
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		ssh := serveSSH(t)
		s.agent(on, "--git-known-hosts", ssh.knownHosts)
		open, err := ssh.NewKey("")
		if err != nil {
			t.Fatal(err)
		}
		locked, err := ssh.NewKey("passphrase-of-the-key")
		if err != nil {
			t.Fatal(err)
		}
		byToken := serveGit(t, gitserver.BasicAuth("", secret))
		byName := serveGit(t, gitserver.BasicAuth("deployer", secret))
		for name, test := range map[string]struct {
			source object
			fails  string // what the log says when it must fail
		}{
			"by token": {source: object{
				"repoUrl": byToken.url("yaml-stack.git"), "branch": "main",
				"gitAuth": object{"accessToken": object{"secret": secret}},
			}},
			"by user name and password": {source: object{
				"repoUrl": byName.url("yaml-stack.git"), "branch": "main",
				"gitAuth": object{"basicAuth": object{"userName": "deployer", "password": object{"secret": secret}}},
			}},
			"at a commit": {source: object{
				"repoUrl": byName.url("yaml-stack.git"), "commit": byName.commit,
				"gitAuth": object{"basicAuth": object{"userName": object{"secret": "deployer"}, "password": object{"secret": secret}}},
			}},
			"by SSH key": {source: object{
				"repoUrl": ssh.repository, "branch": "main",
				"gitAuth": object{"sshAuth": object{"sshPrivateKey": object{"secret": open}}},
			}},
			"by SSH key with passphrase": {source: object{
				"repoUrl": ssh.repository, "branch": "main",
				"gitAuth": object{"sshAuth": object{"sshPrivateKey": object{"secret": locked}, "password": object{"secret": "passphrase-of-the-key"}}},
			}},
			"not with a wrong token": {source: object{
				"repoUrl": byToken.url("yaml-stack.git"), "branch": "main",
				"gitAuth": object{"accessToken": object{"secret": "wrong-token-9f8e7d"}},
			}, fails: "401"},
			"not without one": {source: object{
				"repoUrl": byToken.url("yaml-stack.git"), "branch": "main",
			}, fails: "401"},
			"not from a branch that does not exist": {source: object{
				"repoUrl": byName.url("yaml-stack.git"), "branch": "nowhere",
				"gitAuth": object{"basicAuth": object{"userName": "deployer", "password": object{"secret": secret}}},
			}, fails: "nowhere"},
		} {
			t.Run(name, func(t *testing.T) {
				d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
					r["sourceContext"] = object{"git": test.source}
					operation(r)["preRunCommands"] = []string{"cat .git/config; env"}
				}))
				want := api.StatusSucceeded
				if test.fails != "" {
					want = api.StatusFailed
				}
				if d.Status != want {
					t.Fatalf("status = %s, want %s\n%s", d.Status, want, log)
				}
				if !strings.Contains(log, test.fails) {
					t.Errorf("the log does not say %q:\n%s", test.fails, log)
				}
				for _, leak := range []string{secret, "wrong-token-9f8e7d", "BEGIN OPENSSH", "passphrase-of-the-key", "LONGSHORE_GIT_TOKEN", "LONGSHORE_GIT_PASS", "LONGSHORE_GIT_SSH"} {
					if strings.Contains(log, leak) {
						t.Errorf("the log holds %q:\n%s", leak, log)
					}
				}
			})
		}
	})
}
