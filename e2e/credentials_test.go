package e2e_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/e2e/gitserver"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

// searchJob is a step that looks for a secret wherever another step could: in the
// source, in all below the directory of the job, in what every process shows of
// itself, and in its own environment. The secret is in no argument, variable or
// file of its own. Busybox understands it, too.
func searchJob(secret string) string {
	return fmt.Sprintf(`needle() { echo %s | base64 -d; }
needle | grep -rlF -f - "$PWD" "${LONGSHORE_KEPT%%/*}" && echo LEAK in files
seen=/tmp/search.$$
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' >"$seen"
needle | grep -qF -f - "$seen" && echo LEAK in a process
{ env; git config --list; } >"$seen" 2>/dev/null
needle | grep -qF -f - "$seen" && echo LEAK in the environment
rm -f "$seen"
echo searched`, base64.StdEncoding.EncodeToString([]byte(secret)))
}

// publish makes a repository of files beside those of the host.
func (g gitHost) publish(t *testing.T, name string, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := gitserver.Publish(t.Context(), g.root, name, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := gitserver.Git(t.Context(), "-C", filepath.Join(g.root, name), "tag", "v1.0.0", "main"); err != nil {
		t.Fatal(err)
	}
}

// TestPrivateModules: what go, npm and git themselves ask the same server for
// later in a job is answered, and nothing that a step could find holds the secret.
func TestPrivateModules(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "npm")
	const secret = "s3cr3t-of-the-modules"
	git := serveGit(t, gitserver.BasicAuth("", secret))
	git.publish(t, "mod.git", map[string]string{"go.mod": "module git.example.test/mod.git\n", "mod.go": "// Package mod is private.\npackage mod\n"})
	git.publish(t, "pkg.git", map[string]string{"package.json": `{"name":"private-pkg","version":"1.0.0"}`})
	s, on := newSite(t), processTarget()
	s.agent(on)
	for name, test := range map[string]struct {
		source object
		script []string
	}{
		"git": {script: []string{"git fetch --quiet --unshallow origin || git fetch --quiet origin", "git clone --quiet $REPOSITORIES/pkg.git pkg && ls pkg/package.json"}},
		"go": {script: []string{
			`git remote -v; mkdir m && cd m && printf 'module m\n\ngo 1.22\n\nrequire git.example.test/mod.git v1.0.0\n' >go.mod &&
export GOMODCACHE="$PWD/.cache" GOFLAGS=-modcacherw GOPROXY=direct GOPRIVATE=git.example.test GOTOOLCHAIN=local && go mod download -x && ls .cache/git.example.test`,
		}},
		"npm": {script: []string{`mkdir n && cd n && echo '{"name":"n"}' >package.json && npm_config_cache="$PWD/.npm" npm install --no-audit --no-fund "git+$REPOSITORIES/pkg.git" && ls node_modules/private-pkg`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
				r["sourceContext"] = object{"git": object{
					"repoUrl": git.url("yaml-stack.git"), "branch": "main", "gitAuth": object{"accessToken": object{"secret": secret}},
				}}
				variables(r)["REPOSITORIES"] = git.base
				// Go knows no ports in module paths. This is git's own way around, and
				// must stay beside ours.
				variables(r)["GIT_CONFIG_COUNT"] = "1"
				variables(r)["GIT_CONFIG_KEY_0"] = "url." + git.base + "/.insteadOf"
				variables(r)["GIT_CONFIG_VALUE_0"] = "https://git.example.test/"
				operation(r)["preRunCommands"] = append(test.script, searchJob(secret))
			}))
			if d.Status != api.StatusSucceeded {
				t.Errorf("status = %s\n%s", d.Status, log)
			}
			if !strings.Contains(log, "\nsearched") || strings.Contains(log, "\nLEAK") || strings.Contains(log, secret) {
				t.Errorf("the secret was found, or not looked for:\n%s", log)
			}
		})
	}
}

// TestAPrivateRepositoryBySSH: the same with a key, which nobody can read.
func TestAPrivateRepositoryBySSH(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "ssh")
	ssh := serveSSH(t)
	s, on := newSite(t), processTarget()
	s.agent(on, "--git-known-hosts", ssh.knownHosts)
	key, err := ssh.NewKey("passphrase-of-the-key")
	if err != nil {
		t.Fatal(err)
	}
	d, log := s.deploy(stackOf(t), request(t, on, func(r object) {
		r["sourceContext"] = object{"git": object{
			"repoUrl": ssh.repository, "branch": "main",
			"gitAuth": object{"sshAuth": object{"sshPrivateKey": object{"secret": key}, "password": object{"secret": "passphrase-of-the-key"}}},
		}}
		operation(r)["preRunCommands"] = []string{"git fetch origin && git ls-remote origin", "ssh-add -l", searchJob("passphrase-of-the-key"), searchJob(strings.Split(key, "\n")[2]), searchJob(ssh.repository)}
	}))
	// What is not secret is found: in git's configuration, as a file and as it shows.
	if d.Status != api.StatusSucceeded || !strings.Contains(log, "of the deployment (ED25519)") || strings.Count(log, "\nLEAK") != 2 || !strings.Contains(log, "\nLEAK in files") || !strings.Contains(log, "\nLEAK in the environment") {
		t.Errorf("status = %s\n%s", d.Status, log)
	}
}

// TestCredentialsForLaterSteps: on every target they are asked for by the name of
// the server, shown masked, and left out when the agent says so.
func TestCredentialsForLaterSteps(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-for-later-steps"
	eachTarget(t, func(t *testing.T, on target) {
		git := serveGit(t, gitserver.BasicAuth("", secret))
		host := strings.TrimPrefix(git.base, "http://")
		for name, test := range map[string]struct {
			args []string
			want string
			not  string
		}{
			"by itself":               {want: "\npassword=[secret]\nelsewhere:\nend"},
			"not when the agent says": {args: []string{"--source-keep-credentials=false"}, want: "\nelsewhere:\nend", not: "password="},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				agent := s.agent(on, test.args...)
				ctx, stack := bounded(t), stackOf(t)
				ask := `printf 'protocol=http\nhost=%s\n\n' | sh -c "${GIT_CONFIG_VALUE_0#!} get"`
				if len(test.args) > 0 {
					ask = `: %s; env | grep -e GIT_CONFIG -e LONGSHORE_GIT_SOCKET`
				}
				created, err := s.Create(ctx, stack, request(t, on, func(r object) {
					r["sourceContext"] = object{"git": object{
						"repoUrl": git.url("yaml-stack.git"), "branch": "main", "gitAuth": object{"accessToken": object{"secret": secret}},
					}}
					operation(r)["preRunCommands"] = []string{fmt.Sprintf(ask, host) + "; echo elsewhere:; " + fmt.Sprintf(ask, "other.example.com") + "; echo end; sleep 1", searchJob(secret)}
				}))
				if err != nil {
					t.Fatal(err)
				}
				if on.name == "docker" {
					s.inspectWhileRunning(stack, created.ID, secret)
				}
				d, err := s.WaitEnd(ctx, stack, created.ID)
				if err != nil {
					t.Fatal(err)
				}
				log := s.log(stack, created.ID)
				if d.Status != api.StatusSucceeded || !strings.Contains(log, test.want) || !strings.Contains(log, "\nsearched") || strings.Contains(log, "\nLEAK") || strings.Contains(log, secret) || test.not != "" && strings.Contains(log, test.not) {
					t.Errorf("status = %s, want %q\n%s", d.Status, test.want, log)
				}
				s.clean(on, agent, created.ID)
				searchFiles(t, s.Dir, secret)
				if strings.Contains(agent.Tail(), secret) {
					t.Error("the agent's output holds the secret")
				}
			})
		}
	})
}
