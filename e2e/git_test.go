package e2e_test

import (
	"net/http"
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

// TestTheSourceIsGotAsTheAgentSays: the git of the job's image where there is
// one, go-git where not or when the agent says so.
func TestTheSourceIsGotAsTheAgentSays(t *testing.T) {
	t.Parallel()
	git := serveGit(t, nil)
	for name, test := range map[string]struct {
		on   func(*testing.T) target
		args []string
		want string
	}{
		"git is on the host":        {on: func(*testing.T) target { return processTarget() }, want: "git engine: git "},
		"git is not in the image":   {on: dockerTarget, want: "git engine: go-git, built in, because there is no git command on the PATH"},
		"the agent asks for go-git": {on: func(*testing.T) target { return processTarget() }, args: []string{"--source-engine", "go-git", "--source-timeout", "5m"}, want: "git engine: go-git, built in, as it was asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, on := newSite(t), test.on(t)
			s.agent(on, test.args...)
			d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
				r["sourceContext"] = object{"git": object{"repoUrl": git.url("yaml-stack.git"), "branch": "main"}}
			}))
			if d.Status != api.StatusSucceeded || !strings.Contains(log, test.want) {
				t.Errorf("status = %s, want %q in the log:\n%s", d.Status, test.want, log)
			}
		})
	}
}

// TestATemplateIsTheProject: from a folder of a repository, and from an archive.
func TestATemplateIsTheProject(t *testing.T) {
	t.Parallel()
	git := serveGit(t, nil)
	if _, err := gitserver.Publish(t.Context(), git.root, "examples.git", filepath.Join("..", "examples")); err != nil {
		t.Fatal(err)
	}
	archives := t.TempDir()
	if _, err := gitserver.Git(t.Context(), "-C", filepath.Join(git.root, "yaml-stack.git"), "archive", "--prefix=yaml-stack-main/", "-o", filepath.Join(archives, "stack.tar.gz"), "main"); err != nil {
		t.Fatal(err)
	}
	files := httptest.NewServer(http.FileServer(http.Dir(archives)))
	t.Cleanup(files.Close)
	eachTarget(t, func(t *testing.T, on target) {
		s := newSite(t)
		s.agent(on)
		for name, url := range map[string]string{
			"a folder of a repository": git.url("examples.git/yaml-stack"),
			"an archive":               files.URL + "/stack.tar.gz",
		} {
			t.Run(name, func(t *testing.T) {
				d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
					r["sourceContext"] = object{"template": object{"sourceUrl": url}}
					operation(r)["preRunCommands"] = []string{"test -f Pulumi.yaml"}
				}))
				if d.Status != api.StatusSucceeded {
					t.Errorf("status = %s\n%s", d.Status, log)
				}
			})
		}
	})
}

// TestTheMirrorServesOtherJobs: what one job fetched comes out of the mirror for
// the next that the server lets in, and for no other; and nothing of it can be
// read on the agent's host.
func TestTheMirrorServesOtherJobs(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-of-the-repository"
	eachTarget(t, func(t *testing.T, on target) {
		git := serveGit(t, gitserver.BasicAuth("", secret))
		s, path := newSite(t), filepath.Join(t.TempDir(), "mirror")
		agent := s.agent(on, "--source-mirror-path", path, "--source-mirror-max-size", "64MiB")
		deploy := func(token string) (api.Status, string) {
			d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
				r["sourceContext"] = object{"git": object{
					"repoUrl": git.url("yaml-stack.git"), "branch": "main", "gitAuth": object{"accessToken": object{"secret": token}},
				}}
				operation(r)["preRunCommands"] = []string{`ls -l "$LONGSHORE_SOURCE_MIRROR"; touch "$LONGSHORE_SOURCE_MIRROR/x" 2>&1 || true`}
			}))
			s.clean(on, agent, d.ID) // the agent has taken what it left
			return d.Status, log
		}
		if status, log := deploy(secret); status != api.StatusSucceeded || strings.Contains(log, "comes from the mirror") {
			t.Fatalf("the first: %s\n%s", status, log)
		}
		if status, log := deploy(secret); status != api.StatusSucceeded || !strings.Contains(log, "comes from the mirror") {
			t.Errorf("the second: %s\n%s", status, log)
		} else if on.name == "docker" && !strings.Contains(log, "Read-only file system") {
			t.Errorf("a job could write to the mirror:\n%s", log)
		}
		if status, log := deploy("wrong"); status != api.StatusFailed || strings.Contains(log, "mirror") {
			t.Errorf("with a wrong token: %s\n%s", status, log)
		}
		for _, needle := range []string{"name: yaml-stack", git.commit, "yaml-stack.git", "PACK"} {
			searchFiles(t, path, needle)
		}
	})
}

// TestAHostKeyIsLearned: an SSH host that nobody knows is met once, and known to
// the jobs after that.
func TestAHostKeyIsLearned(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		s, ssh := newSite(t), serveSSH(t)
		agent := s.agent(on, "--source-ssh-accept-new-hosts")
		key, err := ssh.NewKey("")
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{true, false} {
			d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
				r["sourceContext"] = object{"git": object{"repoUrl": ssh.repository, "branch": "main", "gitAuth": object{"sshAuth": object{"sshPrivateKey": object{"secret": key}}}}}
			}))
			if said := strings.Contains(log, "is trusted from now on"); d.Status != api.StatusSucceeded || said != want {
				t.Errorf("deployment %d: %s, want it said: %t\n%s", i+1, d.Status, want, log)
			}
			s.clean(on, agent, d.ID)
		}
		if !strings.Contains(agent.Tail(), "SSH host keys learned") {
			t.Errorf("the agent says nothing of it:\n%s", agent.Tail())
		}
	})
}
