package deps_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/deps"
)

func recipes(t *testing.T, files map[string]string, env ...string) []deps.Recipe {
	t.Helper()
	dir := repository(t, files)
	got, err := deps.Recipes(dir, dir, place(t, env...))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestPluginsStayWithTheirVersions: a lock file that changes elsewhere does not
// lose the plugins, and one that asks for others does.
func TestPluginsStayWithTheirVersions(t *testing.T) {
	t.Parallel()
	npm := func(aws, other string) string {
		return `{"packages": {
    "node_modules/@pulumi/aws": {
      "version": "` + aws + `",
      "resolved": "x"
    },
    "node_modules/other": {
      "version": "` + other + `"
    }
  }
}`
	}
	pom := func(aws, other string) string {
		dependency := func(group, name, version string) string {
			return "<dependency>\n<groupId>" + group + "</groupId>\n<artifactId>" + name + "</artifactId>\n<version>" + version + "</version>\n</dependency>\n"
		}
		return dependency("com.other", "other", other) + dependency("com.pulumi", "aws", aws)
	}
	for name, c := range map[string]struct {
		runtime, file string
		content       func(aws, other string) string
		more          map[string]string
	}{
		"npm": {"nodejs", "package-lock.json", npm, map[string]string{"package.json": "{}"}},
		"yarn": {"nodejs", "yarn.lock", func(a, o string) string {
			return "\"@pulumi/aws@^6\":\n  version \"" + a + "\"\n\nother@1:\n  version \"" + o + "\"\n"
		}, map[string]string{"package.json": "{}"}},
		"pnpm": {"nodejs", "pnpm-lock.yaml", func(a, o string) string {
			return "packages:\n  '@pulumi/aws@" + a + "':\n    resolution: {}\n  other@" + o + ":\n"
		}, map[string]string{"package.json": "{}"}},
		"pip": {"python", "requirements.txt", func(a, o string) string { return "other==" + o + "\nPulumi-aws==" + a + "\nother2==" + o + "\n" }, nil},
		"uv": {"python", "uv.lock", func(a, o string) string {
			return "[[package]]\nname = \"pulumi-aws\"\nversion = \"" + a + "\"\n\n[[package]]\nname = \"o\"\nversion = \"" + o + "\"\n"
		}, map[string]string{"pyproject.toml": ""}},
		"go": {"go", "go.sum", func(a, o string) string {
			return "github.com/pulumi/pulumi-aws/sdk/v6 " + a + " h1:x\nexample.com/other " + o + " h1:y\n"
		}, map[string]string{"go.mod": "module x\n"}},
		"dotnet": {"dotnet", "x.csproj", func(a, o string) string {
			return "<PackageReference Include=\"Pulumi.Aws\" Version=\"" + a + "\" />\n<PackageReference Include=\"O\" Version=\"" + o + "\" />\n"
		}, nil},
		"maven": {"java", "pom.xml", pom, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := func(aws, other string) (plugins, rest string) {
				files := map[string]string{"Pulumi.yaml": "name: x\nruntime: " + c.runtime + "\n", c.file: c.content(aws, other)}
				for name, text := range c.more {
					files[name] = text
				}
				all := recipes(t, files)
				if len(all) < 2 || all[0].Manager != "plugins" {
					t.Fatalf("recipes are %+v", all)
				}
				return all[0].Key, all[1].Key
			}
			plugins, rest := keys("6.0.0", "1.0.0")
			if p, r := keys("6.0.0", "1.0.1"); p != plugins || r == rest {
				t.Errorf("another package: plugins %s, was %s; the rest %s, was %s", p, plugins, r, rest)
			}
			if p, _ := keys("6.1.0", "1.0.0"); p == plugins {
				t.Errorf("another plugin: the key is the same")
			}
		})
	}
	yaml := recipes(t, map[string]string{"Pulumi.yaml": "name: x\nruntime: go\nplugins: {providers: [{name: aws, version: 6.0.0}]}\n", "go.mod": "module x\n"})
	if len(yaml) != 2 || yaml[0].Manager != "plugins" {
		t.Errorf("plugins of Pulumi.yaml are overlooked: %+v", yaml)
	}
}

func TestPlacesThatWereMoved(t *testing.T) {
	t.Parallel()
	node := func(manager string) map[string]string {
		return map[string]string{"Pulumi.yaml": "name: x\nruntime: {name: nodejs, options: {packagemanager: " + manager + "}}\n", "package.json": "{}"}
	}
	one := func(runtime, file string) map[string]string {
		return map[string]string{"Pulumi.yaml": "name: x\nruntime: " + runtime + "\n", file: ""}
	}
	for name, c := range map[string]struct {
		files map[string]string
		env   string
		want  string // of the last recipe
	}{
		"npm":              {node("npm"), "npm_config_cache=/c", "/c/_cacache"},
		"yarn":             {node("yarn"), "YARN_CACHE_FOLDER=/c", "/c"},
		"pnpm by its home": {node("pnpm"), "PNPM_HOME=/c", "/c/store"},
		"pnpm by its data": {node("pnpm"), "XDG_DATA_HOME=/c", "/c/pnpm/store"},
		"bun":              {node("bun"), "BUN_INSTALL=/c", "/c/install/cache"},
		"pip":              {one("python", "requirements.txt"), "XDG_CACHE_HOME=/c", "/c/pip"},
		"uv":               {map[string]string{"Pulumi.yaml": "name: x\nruntime: python\n", "uv.lock": "", "pyproject.toml": ""}, "UV_CACHE_DIR=/c", "/c"},
		"poetry":           {map[string]string{"Pulumi.yaml": "name: x\nruntime: python\n", "poetry.lock": "", "pyproject.toml": ""}, "POETRY_CACHE_DIR=/c", "/c/cache /c/artifacts"},
		"go":               {one("go", "go.mod"), "GOPATH=/c:/d", "/c/pkg/mod /home/user/.cache/go-build"},
		"go without build": {one("go", "go.mod"), "GOCACHE=off", "/home/user/go/pkg/mod"},
		"dotnet":           {one("dotnet", "x.csproj"), "NUGET_PACKAGES=/c", "/c"},
		"gradle":           {one("java", "build.gradle"), "GRADLE_USER_HOME=/c", "/c/caches /c/wrapper"},
		"plugins":          {map[string]string{"Pulumi.yaml": "name: x\nruntime: yaml\n"}, "PULUMI_HOME=/c", "/c/plugins /c/policies"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := recipes(t, c.files, c.env)
			var paths []string
			for _, f := range all[len(all)-1].Folders {
				paths = append(paths, f.Path)
			}
			if diff := cmp.Diff(c.want, strings.Join(paths, " ")); diff != "" {
				t.Errorf("folders (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRequirements: only what names its versions is kept installed, because
// otherwise it would never get newer.
func TestRequirements(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"a==1.0\n":                         true,
		"# comment\na[b]==1.0 ; c < '3'\n": true,
		"a==1.0 \\\n  --hash=sha256:aa\n":  true,
		"a==1.*\n":                         false,
		"a>=1\n":                           false,
		"a==1\nb\n":                        false,
		"-r more.txt\na==1\n":              false,
		"-e git+https://h/x==1\n":          false,
		"":                                 false,
	} {
		all := recipes(t, map[string]string{"Pulumi.yaml": "name: x\nruntime: python\n", "requirements.txt": text})
		if got := all[0].Installed; got != want {
			t.Errorf("%q: installed is kept: %t, want %t", text, got, want)
		}
	}
}

func TestNoHome(t *testing.T) {
	t.Parallel()
	dir := repository(t, map[string]string{"Pulumi.yaml": "name: x\nruntime: yaml\n"})
	if _, err := deps.Recipes(dir, filepath.Clean(dir), deps.Place{}); err == nil || !strings.Contains(err.Error(), "HOME") {
		t.Errorf("Recipes() = %v, want an error that names HOME", err)
	}
}
