package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/cachestore"
	"github.com/longshore-run/longshore/internal/executor"
	"github.com/longshore-run/longshore/internal/jobcache"
	"github.com/longshore-run/longshore/internal/testkit"
)

// keeper is a cache with a folder, as agents serve it.
type keeper struct {
	t    *testing.T
	way  api.JobCache
	stop func()
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	dir, key := t.TempDir(), bytes.Repeat([]byte("k"), 32)
	b, err := blob.OpenFolder("file://"+filepath.Join(dir, "cache"), blob.FolderOptions{Key: key})
	check(t, err)
	s, err := jobcache.New(jobcache.Options{
		Store: cachestore.New(cachestore.Options{Bucket: b}), Blobs: b.Handler(), Key: key,
		Address:  func(context.Context) (string, error) { return "127.0.0.1", nil },
		PortFile: filepath.Join(dir, "port"), InHand: func(string) bool { return true }, Log: zaptest.NewLogger(t),
	})
	check(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	k := &keeper{t: t, stop: sync.OnceFunc(func() {
		cancel()
		<-done
		http.DefaultClient.CloseIdleConnections()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})}
	t.Cleanup(k.stop)
	k.way, err = s.Access(t.Context(), "job-1", "acme/shop/dev")
	check(t, err)
	return k
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// job is a place with a home and a workspace of its own.
type job struct {
	t       *testing.T
	dir     string
	environ []string
}

var placed = regexp.MustCompile(`^(XDG_.*|PULUMI_.*|NPM_CONFIG_(CACHE|STORE_DIR)|PNPM_HOME|YARN_.*_FOLDER|BUN_INSTALL.*|GOPATH|GOCACHE|GOMODCACHE|PIP_CACHE_DIR)$`)

func (k *keeper) job(files map[string]string, environ ...string) *job {
	k.t.Helper()
	dir := k.t.TempDir()
	j := &job{t: k.t, dir: filepath.Join(dir, "deployment")}
	for name, text := range files {
		path := filepath.Join(j.dir, name)
		check(k.t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(k.t, os.WriteFile(path, []byte(text), 0o600))
	}
	check(k.t, os.MkdirAll(filepath.Join(j.dir, ".git"), 0o700))
	content, err := json.Marshal(k.way)
	check(k.t, err)
	file := filepath.Join(dir, "cache.json")
	check(k.t, os.WriteFile(file, content, 0o600))
	for _, entry := range os.Environ() {
		// Nothing that moves the places of the package managers.
		if name, _, _ := strings.Cut(strings.ToUpper(entry), "="); !placed.MatchString(name) {
			j.environ = append(j.environ, entry)
		}
	}
	j.environ = append(j.environ, "HOME="+filepath.Join(dir, "home"), "XDG_CACHE_HOME="+filepath.Join(dir, "home", ".cache"), "LONGSHORE_CACHE_FILE="+file, "LONGSHORE_CACHE_STATE="+filepath.Join(dir, "state.json"))
	j.environ = append(j.environ, environ...)
	return j
}

// does runs a command that is to succeed, and wants texts in its output, in order.
func (j *job) does(command string, wants ...string) {
	j.t.Helper()
	code, out, stderr := call(j.t, j.environ, append(strings.Fields(command), "--workDir="+j.dir, "--stackIdentity=acme/shop/dev", "--shiny")...)
	if code != 0 {
		j.t.Fatalf("%s: code %d\n%s%s", command, code, out, stderr)
	}
	rest := out
	for _, want := range wants {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			j.t.Errorf("%s: %q is not in its place in\n%s", command, want, out)
		}
		rest = after
	}
	for _, entry := range j.environ {
		if _, token, _ := strings.Cut(entry, "=lsc-"); token != "" && strings.Contains(out, token) {
			j.t.Errorf("%s shows the token:\n%s", command, out)
		}
	}
}

// counts checks what the agent's metrics would get, less bytes and time.
func (j *job) counts(wants ...string) {
	j.t.Helper()
	content, err := os.ReadFile(filepath.Join(j.dir, "..", "state.json"))
	check(j.t, err)
	var state executor.CacheState
	check(j.t, json.Unmarshal(content, &state))
	var got []string
	for _, o := range state.Outcomes {
		got = append(got, fmt.Sprintf("%s %s %s", o.Action, o.Manager, o.Result))
		if moved := o.Bytes > 0; moved == (o.Result == api.CacheMiss || o.Result == api.CacheSkipped) || !o.Believable() {
			j.t.Errorf("%+v cannot be", o)
		}
	}
	if diff := cmp.Diff(wants, got); diff != "" {
		j.t.Errorf("counted (-want +got):\n%s", diff)
	}
}

func (j *job) has(name string) {
	j.t.Helper()
	if _, err := os.Stat(filepath.Join(j.dir, name)); err != nil {
		j.t.Error(err)
	}
}

func TestTheCacheOfNpm(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "npm")
	k := newKeeper(t)
	files := map[string]string{
		"Pulumi.yaml":  "name: x\nruntime: nodejs\n",
		"package.json": `{"name":"x","version":"1.0.0","dependencies":{"is-odd":"3.0.1"}}`,
	}
	lock := func() {
		j := k.job(files)
		npm := exec.CommandContext(t.Context(), "npm", "install", "--package-lock-only", "--no-audit")
		npm.Dir, npm.Env = j.dir, j.environ
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("npm: %v\n%s", err, out)
		}
		content, err := os.ReadFile(filepath.Join(j.dir, "package-lock.json"))
		check(t, err)
		files["package-lock.json"] = string(content)
	}
	lock()
	first := k.job(files)
	first.does("cache restore", "cache: npm: miss: npm-installed-linux-", "cache: npm: miss: npm-linux-")
	first.does("dependencies download", "$ npm ci\n")
	first.does("cache save", "cache: npm: saved: npm-installed-", "cache: npm: saved: npm-linux-")
	first.counts("restore npm miss", "restore npm miss", "save npm saved", "save npm saved")

	second := k.job(files)
	second.does("cache restore", "cache: npm: hit: npm-installed-", "cache: npm: skipped: npm-linux-", "not needed")
	second.does("dependencies download", "node_modules was kept and is what package-lock.json says")
	second.has("node_modules/is-odd/package.json")
	second.does("cache save", "cache: npm: skipped: npm-installed-", "restored from this entry", "cache: npm: skipped: npm-linux-")
	second.counts("restore npm hit", "restore npm skipped", "save npm skipped", "save npm skipped")

	// A script of the project is npm's to run.
	plain := files["package.json"]
	files["package.json"] = strings.Replace(plain, "{", `{"scripts":{"postinstall":"echo ran > ran"},`, 1)
	scripted := k.job(files)
	scripted.does("cache restore", "cache: npm: hit: npm-installed-")
	scripted.does("dependencies download", "$ npm install --no-save --prefer-offline\n", "up to date")
	scripted.has("ran")
	scripted.has("node_modules/is-odd/package.json")
	files["package.json"] = plain

	// A package.json that does not fit: npm's own refusal, as without a cache.
	files["package.json"] = strings.Replace(files["package.json"], "3.0.1", "3.0.0", 1)
	odd := k.job(files)
	odd.does("cache restore", "cache: npm: hit: npm-installed-")
	code, out, _ := call(t, odd.environ, "dependencies", "download", "--workDir="+odd.dir)
	if code == 0 || !strings.Contains(out, "not verified but installed anew: package.json does not fit") {
		t.Errorf("code %d\n%s", code, out)
	}
	odd.does("cache save", "the installation failed")

	// Another lock file: what was downloaded serves, what was installed does not.
	delete(files, "package-lock.json")
	lock()
	third := k.job(files)
	third.does("cache restore", "cache: npm: miss: npm-installed-", "cache: npm: partial hit: npm-linux-", "there is no entry npm-linux-")
	third.does("dependencies download", "$ npm ci\n")
	third.does("cache save", "cache: npm: saved: npm-installed-", "cache: npm: saved: npm-linux-")
	third.counts("restore npm miss", "restore npm partial", "save npm saved", "save npm saved")
}

func TestTheCacheOfGo(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "go")
	k := newKeeper(t)
	where, err := exec.CommandContext(t.Context(), "go", "env", "GOENV").Output()
	check(t, err)
	files := map[string]string{
		"Pulumi.yaml": "name: x\nruntime: go\n",
		"go.mod":      "module example.com/x\n\ngo 1.24\n\nrequire rsc.io/quote v1.5.2\n",
	}
	// GOFLAGS makes the modules removable, so that the test can clean up.
	environ := []string{"GOENV=" + strings.TrimSpace(string(where)), "GOFLAGS=-modcacherw -mod=mod"}
	first := k.job(files, environ...)
	first.does("cache restore", "cache: go: miss: go-linux-")
	first.does("dependencies download", "$ go mod download\n")
	first.does("cache save", "cache: go: saved: go-linux-")

	second := k.job(files, append(environ, "GOPROXY=off")...)
	second.does("cache restore", "cache: go: hit: go-linux-")
	second.does("dependencies download", "$ go mod download\n")
	second.has("../home/go/pkg/mod/rsc.io/quote@v1.5.2/go.mod")
	second.does("cache save", "cache: go: skipped: go-linux-", "restored from this entry")
}

// TestTheCacheOfPip installs a wheel that the test makes, and restores it into
// another directory.
func TestTheCacheOfPip(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "python3")
	if err := exec.CommandContext(t.Context(), "python3", "-c", "import ensurepip, venv").Run(); err != nil {
		t.Skip("python3 has no venv")
	}
	wheels := t.TempDir()
	script := `import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/longshoretest-1.0-py3-none-any.whl", "w") as z:
    z.writestr("longshoretest.py", "def main(): print('hello')\n")
    z.writestr("longshoretest-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: longshoretest\nVersion: 1.0\n")
    z.writestr("longshoretest-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr("longshoretest-1.0.dist-info/entry_points.txt", "[console_scripts]\ngreet = longshoretest:main\n")
    z.writestr("longshoretest-1.0.dist-info/RECORD", "")
`
	if out, err := exec.CommandContext(t.Context(), "python3", "-c", script, wheels).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k := newKeeper(t)
	files := map[string]string{"Pulumi.yaml": "name: x\nruntime:\n  name: python\n  options: {virtualenv: venv}\n", "requirements.txt": "longshoretest==1.0\n"}
	environ := []string{"PIP_NO_INDEX=1", "PIP_FIND_LINKS=" + wheels, "PULUMI_ENV="}
	first := k.job(files, environ...)
	first.does("cache restore", "cache: pip: miss: pip-installed-linux-", "cache: pip: miss: pip-linux-")
	first.does("dependencies download", "Successfully installed longshoretest")
	first.does("cache save", "cache: pip: saved: pip-installed-")
	check(t, os.RemoveAll(filepath.Join(first.dir, "venv"))) // nothing may lead there

	second := k.job(files, environ...)
	second.does("cache restore", "cache: pip: hit: pip-installed-", "not needed")
	second.does("dependencies download", "Requirement already satisfied: longshoretest==1.0")
	out, err := exec.CommandContext(t.Context(), filepath.Join(second.dir, "venv", "bin", "greet")).CombinedOutput()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("greet: %q, %v", out, err)
	}
	second.does("cache save", "cache: pip: skipped: pip-installed-")
}

func TestTheCacheOfPlugins(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	files := map[string]string{"Pulumi.yaml": "name: x\nruntime: yaml\nresources: {a: {type: random:RandomPet}}\n"}
	plugin := func(j *job, name string) {
		check(t, os.MkdirAll(filepath.Join(j.dir, "..", "moved", "plugins", name), 0o700))
		check(t, os.WriteFile(filepath.Join(j.dir, "..", "moved", "plugins", name, "bin"), []byte(name), 0o700))
	}
	start := func() *job {
		j := k.job(files)
		j.environ = append(j.environ, "PULUMI_HOME="+filepath.Join(j.dir, "..", "moved"))
		return j
	}
	first := start()
	first.does("cache restore", "cache: plugins: miss: plugins-linux-")
	first.does("cache save", "cache: plugins: skipped: plugins-linux-", "nothing to keep")
	plugin(first, "resource-random-v4.0.0")
	first.does("cache save", "cache: plugins: saved: plugins-linux-")

	second := start()
	second.does("cache restore", "cache: plugins: hit: plugins-linux-")
	second.has("../moved/plugins/resource-random-v4.0.0/bin")
	second.does("cache save", "restored from this entry")
	plugin(second, "resource-aws-v6.0.0") // the key did not tell
	second.does("cache save", "cache: plugins: saved: plugins-linux-")
	second.counts("restore plugins hit", "save plugins skipped", "save plugins saved")
}

func TestACacheFailsNothing(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	files := map[string]string{"Pulumi.yaml": "name: x\nruntime: yaml\n"}
	broken := k.job(files)
	broken.environ = append(broken.environ, "LONGSHORE_CACHE_FILE="+filepath.Join(broken.dir, "nowhere"))
	off := *k
	off.way = api.JobCache{Off: "the agent keeps none"}
	hosted := k.job(files)
	hosted.environ = append(hosted.environ, "LONGSHORE_JOB_DIRECTORY="+hosted.dir)
	nameless := k.job(files, "LONGSHORE_CACHE_FILE=", "PULUMI_BACKEND_URL=http://127.0.0.1:1", "PULUMI_ACCESS_TOKEN=lsc-secret")
	for name, c := range map[string]struct {
		job           *job
		restore, save string
	}{
		"a file that is gone":          {broken, "cache: skipped: how the agent's cache is reached", "cache: skipped: how the agent's"},
		"a cache that is off":          {off.job(files), "cache: off: the agent keeps none\n", "cache: off: the agent keeps none\n"},
		"a project that is none":       {k.job(nil), "cache: skipped: there is no Pulumi.yaml", "cache: skipped: there is no Pulumi.yaml"},
		"a runtime that is not there":  {k.job(map[string]string{"Pulumi.yaml": "name: x\nruntime: go\n", "go.mod": "module x\n"}, "PATH="), "cache: skipped: go: it is not in the PATH", "cache: skipped: go"},
		"folders of the host":          {hosted, "belongs to the host", "belongs to the host"},
		"a service that does not hear": {nameless, "cache: plugins: miss: plugins-", "cache: plugins: skipped: plugins-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.job.t = t
			c.job.does("cache restore", c.restore)
			c.job.does("cache save", c.save)
		})
	}
	k.stop()
	k.job(files).does("cache restore", "cache: plugins: miss: plugins-")
}

// TestTheCacheOfOtherManagersOfNode runs those that are there; none of them is
// part of an ordinary machine.
func TestTheCacheOfOtherManagersOfNode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		program, version, lock   string
		restored, command, after string
		offline                  []string
	}{
		"yarn":       {"yarn", "1.", "yarn.lock", "hit: yarn-installed-", "$ yarn install --frozen-lockfile", "Already up-to-date", nil},
		"yarn berry": {"yarn", "4.", "yarn.lock", "hit: yarn-linux-", "$ yarn install --immutable", "", []string{"YARN_ENABLE_NETWORK=0"}},
		"pnpm":       {"pnpm", "", "pnpm-lock.yaml", "hit: pnpm-linux-", "$ pnpm install --frozen-lockfile", "downloaded 0", nil},
		"bun":        {"bun", "", "bun.lock", "hit: bun-linux-", "$ bun install --frozen-lockfile", "installed", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			version, err := exec.CommandContext(t.Context(), testkit.Path(t, c.program), "--version").Output()
			if err != nil || !strings.HasPrefix(string(version), c.version) {
				t.Skipf("%s is of version %s, not %s (%v)", c.program, version, c.version, err)
			}
			k := newKeeper(t)
			files := map[string]string{
				"Pulumi.yaml":  "name: x\nruntime: {name: nodejs, options: {packagemanager: " + c.program + "}}\n",
				"package.json": `{"name":"x","version":"1.0.0","packageManager":"` + c.program + "@" + strings.TrimSpace(string(version)) + `","dependencies":{"is-odd":"3.0.1"}}`,
			}
			lock := k.job(files)
			lock.does("dependencies download", "$ "+c.program+" install")
			content, err := os.ReadFile(filepath.Join(lock.dir, c.lock))
			check(t, err)
			files[c.lock] = string(content)

			first := k.job(files)
			first.does("cache restore", "miss: "+c.program+"-linux-")
			first.does("dependencies download", c.command)
			first.does("cache save", "saved: "+c.program+"-linux-")
			second := k.job(files, c.offline...)
			second.does("cache restore", c.restored)
			second.does("dependencies download", c.command, c.after)
			second.does("cache save", "restored from this entry")
		})
	}
}
