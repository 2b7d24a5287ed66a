package main

import (
	"bytes"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/e2e/gitserver"
	"github.com/longshore-run/longshore/internal/testkit"
)

// call runs the program with arguments and an environment.
func call(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, environ, &out, &err)
	return code, out.String(), err.String()
}

func TestCommandLines(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args         []string
		code         int
		stdout, says string
	}{
		"help teaches":                         {[]string{"--help"}, 0, "lives inside a job", ""},
		"the flag of the version":              {[]string{"--version"}, 0, "longshore-executor dev", ""},
		"the command of the version":           {[]string{"version"}, 0, "dev\n", ""},
		"run has its exit codes in its help":   {[]string{"run", "--help"}, 0, "14 the service", ""},
		"a command that is not there":          {[]string{"cash", "restore"}, 1, "", "unknown command"},
		"no cache that is known":               {[]string{"cache", "restore", "--stackIdentity=a/b/c"}, 0, "cache: skipped: no service is known", ""},
		"a source that is not there":           {[]string{"getsource", "hg", "--repoURL=x"}, 2, "", `unknown command "hg"`},
		"a group alone":                        {[]string{"dependencies"}, 2, "", "unknown command"},
		"all that is missing at once":          {[]string{"getsource", "git"}, 2, "", "--repoURL is missing\n--workDir is missing"},
		"a flag of run that is not there":      {[]string{"run", "--what"}, 2, "", "unknown flag"},
		"an operation that is not there":       {[]string{"pulumi", "explode", "--stackIdentity=a/b/c"}, 2, "", "want one operation of update"},
		"no operation":                         {[]string{"pulumi"}, 2, "", "want one operation of update"},
		"no stack":                             {[]string{"pulumi", "update"}, 2, "", "--stackIdentity is missing"},
		"a stack that is none":                 {[]string{"pulumi", "update", "--stackIdentity=dev"}, 1, "", "want organization/project/stack"},
		"no pulumi":                            {[]string{"pulumi", "update", "--stackIdentity=a/b/c"}, 1, "", "must hold the Pulumi CLI"},
		"flags of a later service are ignored": {[]string{"pulumi", "update", "--stackIdentity=dev", "--shiny=1", "--new"}, 1, "", "want organization/project/stack"},
		"a template of a registry":             {[]string{"getsource", "template", "--sourceUrl=registry://templates/a/b", "--workDir=x"}, 1, "", "write it as registry://templates/"},
		"no job file":                          {[]string{"run", "--job-file", "/nowhere/job.json"}, 1, "", "job file: open /nowhere/job.json"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, nil, c.args...)
			if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.says) {
				t.Errorf("code %d, stdout %q, stderr %q; want %d, %q, %q", code, stdout, stderr, c.code, c.stdout, c.says)
			}
		})
	}
}

// TestGitHubToken: it gets a source on GitHub that has no credentials of its own,
// and goes nowhere else.
func TestGitHubToken(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "git")
	root := t.TempDir()
	if _, err := gitserver.Publish(t.Context(), root, "app.git", filepath.Join("..", "..", "examples", "yaml-stack")); err != nil {
		t.Fatal(err)
	}
	handler, err := gitserver.Handler(t.Context(), root, gitserver.BasicAuth("x-access-token", "gh-token"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	for name, c := range map[string]struct {
		env  []string
		code int
	}{
		"GitHub":                      {[]string{"GITHUB_TOKEN=gh-token", "GITHUB_SERVER_URL=" + server.URL}, 0},
		"its own credentials win":     {[]string{"GITHUB_TOKEN=gh-token", "GITHUB_SERVER_URL=" + server.URL, "LONGSHORE_GIT_TOKEN=wrong-token"}, 1},
		"a server that is not GitHub": {[]string{"GITHUB_TOKEN=gh-token"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(t, append(c.env, "LONGSHORE_SOURCE_CA="+ca), "getsource", "git", "--repoURL="+server.URL+"/app.git", "--workDir="+filepath.Join(t.TempDir(), "src"), "--branch=main")
			if code != c.code || strings.Contains(stdout+stderr, "gh-token") {
				t.Errorf("code %d, want %d\n%s%s", code, c.code, stdout, stderr)
			}
		})
	}
}

func TestGetsourceAndDependencies(t *testing.T) {
	t.Parallel()
	repo, work := t.TempDir(), filepath.Join(t.TempDir(), "deployment")
	if err := os.WriteFile(filepath.Join(repo, "Pulumi.yaml"), []byte("name: app\nruntime: yaml\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The message comes from the checkout, and a flag of a later service is ignored.
	code, _, stderr := call(t, []string{"LONGSHORE_GIT_TOKEN=hunter22222"}, "getsource", "git", "--repoURL=gopher://host/x.git", "--workDir="+work, "--branch=main", "--shiny")
	if code != 1 || !strings.Contains(stderr, "gopher") || strings.Contains(stderr, "hunter22222") {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
	if code, out, stderr := call(t, os.Environ(), "dependencies", "download", "--workDir="+repo); code != 0 {
		t.Errorf("dependencies of a yaml program: code %d\n%s%s", code, out, stderr)
	}
}

func TestPulumiEndsWithPulumisExitCodeAndOneOutput(t *testing.T) {
	t.Parallel()
	bin, dir := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\necho \"$@\"; echo problem >&2; exit 5\n"
	if err := os.WriteFile(filepath.Join(bin, "pulumi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + bin + ":/bin:/usr/bin", "PULUMI_BACKEND_URL=https://service"}
	code, stdout, stderr := call(t, env, "pulumi", "destroy", "--stackIdentity=a/b/c", "--workDir="+dir, "--debug")
	if code != 5 || stdout != "destroy --yes --skip-preview --non-interactive --debug --stack a/b/c\n" || stderr != "problem\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
