package control_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/testkit"
)

// substitution is a $( that a shell would act on.
var substitution = regexp.MustCompile(`(^|[^\\])\$\(`)

var update = flag.Bool("update", false, "rewrite want.json of the golden files")

func TestCompile(t *testing.T) {
	t.Parallel()
	names := try(filepath.Glob("testdata/compile/*.txtar"))(t)
	if len(names) == 0 {
		t.Fatal("there are no golden files")
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive := try(txtar.ParseFile(name))(t)
			if len(archive.Files) == 0 || archive.Files[0].Name != "input.json" {
				t.Fatal("the first file must be input.json")
			}
			var in control.CompileInput
			must(t, json.Unmarshal(archive.Files[0].Data, &in))
			def := control.Compile(in)
			must(t, def.Validate())
			var got bytes.Buffer
			e := json.NewEncoder(&got)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			must(t, e.Encode(def))
			if *update {
				archive.Files = append(archive.Files[:1], txtar.File{Name: "want.json", Data: got.Bytes()})
				must(t, os.WriteFile(name, txtar.Format(archive), 0o600))
				return
			}
			if len(archive.Files) < 2 {
				t.Fatal("there is no want.json, run with -update and read what it wrote")
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), got.String()); diff != "" {
				t.Errorf("Compile() differs (-want +got), run with -update if it is meant to:\n%s", diff)
			}
			for _, s := range def.Steps {
				if substitution.MatchString(s.Run) && !strings.HasPrefix(s.Name, "Pre-run") {
					t.Errorf("step %q holds $(...), which foreign runners damage", s.Name)
				}
			}
		})
	}
}

// evil are values that a shell would like to act on.
var evil = []string{
	"plain", "two words", "$HOME", "$(touch pwned)", "`touch pwned`", `"; touch pwned; "`, `'; touch pwned; '`,
	`\`, `\\"`, `a\`, "new\nline", "!!", "*", "~", "&& touch pwned", "| touch pwned", "${PATH}", "ä€😀", "\t", "#", "%s", `$'\x41'`, `\$(touch pwned)`,
}

func TestShellsReadExactlyTheValue(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"sh", "bash"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			path := testkit.Path(t, shell)
			for _, value := range evil {
				dir := t.TempDir()
				show := filepath.Join(dir, "show")
				must(t, os.WriteFile(show, []byte("#!/bin/sh\nfor a in \"$@\"; do printf '%s\\0' \"$a\"; done\n"), 0o700))
				def := control.Compile(control.CompileInput{
					Stack: stack, Operation: api.OperationUpdate,
					Request: api.CreateDeploymentRequest{SourceContext: &api.SourceContextRequest{
						Git: &api.SourceContextGitRequest{RepoURL: value, Branch: value, RepoDir: value},
					}},
				})
				cmd := exec.CommandContext(t.Context(), path, "-c", def.Steps[2].Run)
				cmd.Dir, cmd.Env = dir, []string{"LONGSHORE_EXECUTOR=" + show, "PATH=" + os.Getenv("PATH"), "HOME=/nowhere"}
				out, err := cmd.Output()
				if err != nil {
					t.Errorf("%q: %v", value, err)
					continue
				}
				got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
				want := []string{"getsource", "git", "--repoURL=" + value, "--workDir=deployment", "--branch=" + value, "--repoDir=" + value}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%q: arguments differ (-want +got):\n%s", value, diff)
				}
				if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
					t.Errorf("%q was acted on", value)
				}
			}
		})
	}
}

// TestDownloadScript runs the first step for real: with an executor that the
// agent brought, and with one that is to be downloaded by each of the programs
// it knows.
func TestDownloadScript(t *testing.T) {
	t.Parallel()
	const token = "lsj-sesame"
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/deployments/executor" || r.Header.Get("Authorization") != "token "+token || r.URL.Query().Get("arch") == "" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		z := gzip.NewWriter(w)
		z.Write([]byte("#!/bin/sh\necho executor\n"))
		z.Close()
	}))
	t.Cleanup(service.Close)
	in := control.CompileInput{Stack: stack, Operation: api.OperationUpdate, PublicURL: service.URL, Token: token}
	def := control.Compile(in)
	step := def.Steps[1]
	if def.EnvScopes["LONGSHORE_JOB_TOKEN"][0] != 1 {
		t.Errorf("scopes = %v, want the job token for step 1 only", def.EnvScopes)
	}
	run := func(t *testing.T, path string, more ...string) (dir, out string) {
		t.Helper()
		dir = t.TempDir()
		cmd := exec.CommandContext(t.Context(), testkit.Path(t, "sh"), "-x", "-c", step.Run)
		cmd.Dir = dir
		cmd.Env = append([]string{
			"PATH=" + path, "LONGSHORE_SERVICE_URL=" + def.Env["LONGSHORE_SERVICE_URL"], "LONGSHORE_JOB_TOKEN=" + token,
			"PULUMI_ACCESS_TOKEN=of-the-user", "PULUMI_SERVICE_URL=https://elsewhere.example/api",
		}, more...)
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("download: %v\n%s", err, text)
		}
		return dir, string(text)
	}
	t.Run("brought", func(t *testing.T) {
		t.Parallel()
		dir, out := run(t, os.Getenv("PATH"), "LONGSHORE_EXECUTOR=/longshore/bin/longshore-executor")
		if !strings.Contains(out, "/longshore/bin/longshore-executor") {
			t.Errorf("output %q does not say which executor is used", out)
		}
		if _, err := os.Stat(filepath.Join(dir, "deployment")); err != nil {
			t.Errorf("no work tree for a deployment without a source: %v", err)
		}
	})
	for _, program := range []string{"curl", "wget"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir() // a PATH with this program only
			for _, name := range []string{program, "uname", "gunzip", "gzip", "rm", "chmod", "mkdir", "grep", "sh"} {
				must(t, os.Symlink(testkit.Path(t, name), filepath.Join(bin, name)))
			}
			dir, out := run(t, bin)
			text, err := exec.CommandContext(t.Context(), filepath.Join(dir, "pulumi-deploy-executor")).Output()
			if err != nil || string(text) != "executor\n" {
				t.Errorf("what was downloaded does not run: %q, %v", text, err)
			}
			// The shell traces every command it starts; printf is its own.
			for line := range strings.Lines(out) {
				if strings.Contains(line, token) && !strings.Contains(line, "printf") {
					t.Errorf("the token is on a command line: %s", line)
				}
			}
			left := try(filepath.Glob(filepath.Join(dir, ".*")))(t)
			if len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
