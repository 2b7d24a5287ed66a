package deps_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/deps"
	"github.com/longshore-run/longshore/internal/testkit"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// repository writes files into a new directory that looks like a checkout.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, ".git", "HEAD"), "ref: refs/heads/main\n")
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

// TestNpm installs a real package with npm, from its lock file.
func TestNpm(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "npm")
	dir := repository(t, map[string]string{
		"Pulumi.yaml":  "name: x\nruntime: nodejs\n",
		"package.json": `{"name":"x","version":"1.0.0","dependencies":{"is-number":"7.0.0"}}`,
	})
	env := append(os.Environ(), "NPM_CONFIG_CACHE="+t.TempDir())
	var out bytes.Buffer
	if err := deps.Download(t.Context(), dir, &out, env, false); err != nil { // npm install: writes the lock file
		t.Fatalf("Download: %v\n%s", err, out.String())
	}
	if err := os.RemoveAll(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := deps.Download(t.Context(), dir, &out, env, false); err != nil {
		t.Fatalf("Download: %v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "$ npm ci\n") {
		t.Errorf("output does not name npm ci:\n%s", out.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "is-number", "package.json")); err != nil {
		t.Error(err)
	}
	// A lock file that does not fit is refused by npm, and its words come through.
	write(t, filepath.Join(dir, "package.json"), `{"name":"x","version":"1.0.0","dependencies":{"is-number":"6.0.0"}}`)
	out.Reset()
	err := deps.Download(t.Context(), dir, &out, env, false)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out.String(), "can only install packages when") {
		t.Errorf("Download() = %v, want exit code 1 and npm's own words:\n%s", err, out.String())
	}
}

// TestGo downloads a real module.
func TestGo(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "go")
	dir := repository(t, map[string]string{
		"infra/Pulumi.yaml": "name: x\nruntime: go\n",
		"infra/go.mod":      "module example.com/x\n\ngo 1.24\n\nrequire rsc.io/quote v1.5.2\n",
	})
	modules := t.TempDir()
	var out bytes.Buffer
	// GOFLAGS makes the modules removable, so that the test can clean up.
	err := deps.Download(t.Context(), filepath.Join(dir, "infra"), &out, append(os.Environ(), "GOMODCACHE="+modules, "GOFLAGS=-modcacherw -mod=mod"), false)
	if err != nil {
		t.Fatalf("Download: %v\n%s", err, out.String())
	}
	if _, err := os.Stat(filepath.Join(modules, "rsc.io", "quote@v1.5.2", "go.mod")); err != nil {
		t.Error(err)
	}
}

// TestPip installs a wheel that the test makes into a virtual environment, and
// hands that on to the steps that follow.
func TestPip(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "python3")
	if err := exec.CommandContext(t.Context(), "python3", "-c", "import ensurepip, venv").Run(); err != nil {
		t.Skip("python3 has no venv")
	}
	dir := repository(t, map[string]string{
		"Pulumi.yaml":      "name: x\nruntime: python\n",
		"requirements.txt": "longshoretest==1.0\n",
		"wheel.py": `import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/longshoretest-1.0-py3-none-any.whl", "w") as z:
    z.writestr("longshoretest.py", "print('installed')\n")
    z.writestr("longshoretest-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: longshoretest\nVersion: 1.0\n")
    z.writestr("longshoretest-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr("longshoretest-1.0.dist-info/RECORD", "")
`,
	})
	wheels := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "python3", filepath.Join(dir, "wheel.py"), wheels).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	next := filepath.Join(t.TempDir(), "PULUMI_ENV")
	env := append(os.Environ(), "PIP_NO_INDEX=1", "PIP_FIND_LINKS="+wheels, "PULUMI_ENV="+next)
	var out bytes.Buffer
	for range 2 { // the second time the environment is there
		if err := deps.Download(t.Context(), dir, &out, env, false); err != nil {
			t.Fatalf("Download: %v\n%s", err, out.String())
		}
	}
	said, err := exec.CommandContext(t.Context(), filepath.Join(dir, "venv", "bin", "python"), "-c", "import longshoretest").Output()
	if err != nil || string(said) != "installed\n" {
		t.Errorf("python says %q, %v", said, err)
	}
	b, err := os.ReadFile(next)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	if want := "VIRTUAL_ENV=" + filepath.Join(dir, "venv"); lines[0] != want {
		t.Errorf("PULUMI_ENV begins with %q, want %q", lines[0], want)
	}
	if want := "PATH=" + filepath.Join(dir, "venv", "bin") + ":"; !strings.HasPrefix(lines[1], want) {
		t.Errorf("PULUMI_ENV goes on with %q, want %q", lines[1], want)
	}
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	dir := repository(t, map[string]string{"Pulumi.yaml": "name: x\nruntime: yaml\n"})
	var out bytes.Buffer
	if err := deps.Download(t.Context(), dir, &out, nil, false); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("Download() = %v, and %q; want no error and one line", err, out.String())
	}
}

func TestMissingInstaller(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"a program": {
			map[string]string{"Pulumi.yaml": "name: x\nruntime: nodejs\n", "package.json": "{}", "pnpm-lock.yaml": ""},
			[]string{"pnpm is needed because of pnpm-lock.yaml", "not in the PATH", "use an image that has it"},
		},
		"a wrapper that cannot be executed": {
			map[string]string{"Pulumi.yaml": "name: x\nruntime: java\n", "pom.xml": "", "mvnw": ""},
			[]string{"mvnw is needed because of pom.xml", "not executable"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := repository(t, tc.files)
			err := deps.Download(t.Context(), dir, &bytes.Buffer{}, []string{"PATH=" + t.TempDir()}, false)
			if err == nil {
				t.Fatal("Download() = nil, want an error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error = %v\nwant %q in it", err, want)
				}
			}
		})
	}
}

// TestInstaller runs a program that stands in for npm: what it is given, and
// what becomes of its end.
func TestInstaller(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "bash")
	bin := t.TempDir()
	npm := filepath.Join(bin, "npm")
	write(t, npm, `#!/bin/bash
trap 'echo got SIGINT; exit 0' INT
echo "CI=$CI MINE=$MINE AUDIT=$NPM_CONFIG_AUDIT$npm_config_audit" # the environment
case "$MINE" in
fail) exit 7 ;;
wait) while :; do read -rt 0.05 <> <(:); done ;;
esac
`)
	if err := os.Chmod(npm, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := repository(t, map[string]string{"Pulumi.yaml": "name: x\nruntime: nodejs\n", "package.json": "{}"})
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "npm_config_audit=mine"}

	var out bytes.Buffer
	err := deps.Download(t.Context(), dir, &out, append(env, "MINE=fail"), false)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("Download() = %v, want exit code 7", err)
	}
	if want := "CI=true MINE=fail AUDIT=mine\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("output = %q, want it to end with %q", out.String(), want)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	lines := &signalling{text: "CI=true", seen: func() { cancel(errors.New("enough")) }}
	err = deps.Download(ctx, dir, lines, append(env, "MINE=wait"), false)
	if err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Download() = %v, want the cause of the cancel", err)
	}
	if n := strings.Count(lines.b.String(), "got SIGINT"); n != 1 {
		t.Errorf("the installer got %d SIGINTs, want 1: %q", n, lines.b.String())
	}
}

// program writes a script that stands in for a program.
func program(t *testing.T, dir, name, script string) {
	t.Helper()
	path := filepath.Join(dir, name)
	write(t, path, "#!/bin/sh\n"+script)
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestKeptThatDoesNotDo: what a cache brought is removed when the installer has
// no use for it, and the lock file has the last word.
func TestKeptThatDoesNotDo(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	program(t, bin, "npm", `echo "npm $1"; [ "$1" = ci ]`)
	dir := repository(t, map[string]string{
		"Pulumi.yaml": "name: x\nruntime: nodejs\n", "package.json": `{"dependencies":{"a":"1"}}`,
		"package-lock.json":     `{"packages":{"":{"dependencies":{"a":"1"}},"node_modules/a":{"dependencies":{"b":"1"}}}}`,
		"node_modules/a/broken": "",
	})
	var out bytes.Buffer
	if err := deps.Download(t.Context(), dir, &out, []string{"PATH=" + bin + ":/bin:/usr/bin"}, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"npm install\n", "warning: what was kept does not do, installing anew", "npm ci\n"} {
		_, after, ok := strings.Cut(out.String(), want)
		if !ok {
			t.Fatalf("%q is not in its place in %q", want, out.String())
		}
		out = *bytes.NewBufferString(after)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was kept is still there: %v", err)
	}
}

func TestPluginsAreInstalledByPulumi(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ script, want, not string }{
		"one that can":          {`case "$*" in *--help) echo "--no-dependencies" ;; *) echo "got: $*" ;; esac`, "$ pulumi install --no-dependencies\ngot: install --no-dependencies\n", "warning"},
		"one that fails":        {`case "$*" in *--help) echo "--no-dependencies" ;; *) exit 3 ;; esac`, "exit status 3: its own words are above; the operation gets the plugins itself\n", "got:"},
		"one of before":         {`[ "$1" = install ] && exit 255`, "nothing to install", "$ pulumi"},
		"one that knows less":   {`echo "got: $*"`, "nothing to install", "$ pulumi"},
		"none, which is no end": {``, "nothing to install", "$ pulumi"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			if tc.script != "" {
				program(t, bin, "pulumi", tc.script)
			}
			dir := repository(t, map[string]string{"Pulumi.yaml": "name: x\nruntime: yaml\n"})
			var out bytes.Buffer
			if err := deps.Download(t.Context(), dir, &out, []string{"PATH=" + bin}, false); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), tc.want) || strings.Contains(out.String(), tc.not) {
				t.Errorf("output %q, want %q and not %q", out.String(), tc.want, tc.not)
			}
		})
	}
}

// signalling calls seen when a text was written. Only exec writes to it.
type signalling struct {
	b    bytes.Buffer
	text string
	seen func()
}

func (s *signalling) Write(p []byte) (int, error) {
	n, err := s.b.Write(p)
	if strings.Contains(s.b.String(), s.text) {
		s.seen()
	}
	return n, err
}

func ExampleDownload() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "Pulumi.yaml"), []byte("name: x\nruntime: yaml\n"), 0o600); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(deps.Download(ctx, dir, os.Stdout, os.Environ(), false))
	// Output:
	// nothing to install: the program is YAML
	// <nil>
}
