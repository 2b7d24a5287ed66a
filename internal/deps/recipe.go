package deps

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Recipe is what a cache can keep of one job for the next. It is plain data.
type Recipe struct {
	Manager string   // the package manager, or "plugins"
	Key     string   // names the entry, and all that it depends on
	Prefix  string   // of the keys whose entries are better than none; "" for none
	Folders []Folder // no two lie within each other
	// Installed says that the folders are what an installer made of the lock file
	// that Key has the sum of. With them the recipe that is Otherwise is not needed.
	Installed bool
	Otherwise bool
}

// Folder is one directory of a Recipe.
type Folder struct {
	Name  string // in the archive
	Path  string // absolute
	Merge bool   // what is there already stays
}

// Place is what recipes depend on beside the files of the project.
type Place struct {
	Env      []string // of the job, "KEY=value" each
	OS, Arch string
	Version  string // of the runtime; see Version
	Root     bool   // the job runs as the superuser
}

// Recipes says what to keep for the project in dir, whose repository is root. It
// looks at files and runs nothing.
//
// The key of a manager's store is MANAGER-OS-ARCH-VERSION-SUM, where SUM is the
// sha256 of the lock file, or of what stands in for one; its entries serve other
// sums, too. What is installed has the same key with "installed" for its second
// word ("berry" and "vendored" are the others), and serves its own sum alone. That
// of the plugins of Pulumi has the sum of what the lock file and Pulumi.yaml say of
// Pulumi's packages.
func Recipes(dir, root string, place Place) ([]Recipe, error) {
	plan, err := Plan(dir, root)
	if err != nil {
		return nil, err
	}
	home := getenv(place.Env, "HOME")
	if !filepath.IsAbs(home) {
		return nil, errors.New("HOME is not set to a path, so the places of the package managers are not known")
	}
	p, err := readProject(dir, root)
	if err != nil {
		return nil, err
	}
	var recipes []Recipe
	wants, err := p.wants(plan)
	if err != nil {
		return nil, err
	}
	if len(wants) > 0 {
		recipes = append(recipes, pluginRecipe(wants, home, place))
	}
	if plan.Manager == "" || len(plan.sources) == 0 {
		return recipes, nil
	}
	sum, err := sumOf(plan.sources)
	if err != nil {
		return nil, err
	}
	system := place.OS + "-" + place.Arch + "-"
	tail := system + keyPart(place.Version) + "-"
	if plan.tree != "" {
		made := sum
		if plan.Manager == "pip" || plan.Manager == "poetry" { // the environment leads to its python
			if made, err = withPython(sum, plan.dir, place.Env); err != nil {
				return nil, err
			}
		}
		recipes = append(recipes, Recipe{
			Manager: plan.Manager, Installed: true,
			Key:     plan.Manager + "-installed-" + tail + made,
			Folders: []Folder{{Name: "installed", Path: plan.tree}},
		})
	}
	if folders := plan.stores(home, place); len(folders) > 0 {
		recipes = append(recipes, Recipe{
			Manager: plan.Manager, Otherwise: plan.tree != "",
			Key:     plan.storeName() + "-" + tail + sum,
			Prefix:  plan.storeName() + "-" + system,
			Folders: folders,
		})
	}
	return recipes, nil
}

// stores are where a package manager keeps what it downloaded, for all projects.
func (i Installation) stores(home string, place Place) []Folder {
	env := place.Env
	caches := first(env, filepath.Join(home, ".cache"), "XDG_CACHE_HOME")
	in := func(elem ...string) string { return filepath.Join(append([]string{home}, elem...)...) }
	var folders []Folder
	add := func(name, path string) {
		if filepath.IsAbs(path) {
			folders = append(folders, Folder{Name: name, Path: filepath.Clean(path), Merge: true})
		}
	}
	switch i.storeName() {
	case "npm":
		add("npm-cache", filepath.Join(first(env, in(".npm"), "npm_config_cache", "NPM_CONFIG_CACHE"), "_cacache"))
	case "yarn":
		if place.Root { // yarn's own rule
			caches = first(env, "/usr/local/share/.cache", "XDG_CACHE_HOME")
		}
		add("yarn-cache", first(env, filepath.Join(caches, "yarn"), "YARN_CACHE_FOLDER"))
	case "yarn-berry":
		add("yarn-global", filepath.Join(first(env, in(".yarn", "berry"), "YARN_GLOBAL_FOLDER"), "cache"))
		if !exists(i.dir, ".yarn/cache") { // else it is part of the repository
			add("yarn-project", filepath.Join(i.dir, ".yarn", "cache"))
		}
	case "pnpm":
		data := first(env, in(".local", "share"), "XDG_DATA_HOME")
		path := filepath.Join(data, "pnpm", "store")
		if pnpm := getenv(env, "PNPM_HOME"); pnpm != "" {
			path = filepath.Join(pnpm, "store")
		}
		add("pnpm-store", first(env, path, "npm_config_store_dir", "NPM_CONFIG_STORE_DIR"))
	case "bun":
		bun := in(".bun")
		if xdg := getenv(env, "XDG_CACHE_HOME"); xdg != "" {
			bun = filepath.Join(xdg, ".bun")
		}
		add("bun-cache", first(env, filepath.Join(first(env, bun, "BUN_INSTALL"), "install", "cache"), "BUN_INSTALL_CACHE_DIR"))
	case "pip":
		add("pip-cache", first(env, filepath.Join(caches, "pip"), "PIP_CACHE_DIR"))
	case "uv":
		add("uv-cache", first(env, filepath.Join(caches, "uv"), "UV_CACHE_DIR"))
	case "poetry":
		poetry := first(env, filepath.Join(caches, "pypoetry"), "POETRY_CACHE_DIR")
		add("poetry-cache", filepath.Join(poetry, "cache"))
		add("poetry-artifacts", filepath.Join(poetry, "artifacts"))
	case "go":
		gopath, _, _ := strings.Cut(first(env, in("go"), "GOPATH"), string(filepath.ListSeparator))
		add("go-modules", first(env, filepath.Join(gopath, "pkg", "mod"), "GOMODCACHE"))
		add("go-build", first(env, filepath.Join(caches, "go-build"), "GOCACHE"))
	case "go-vendored":
		add("go-build", first(env, filepath.Join(caches, "go-build"), "GOCACHE"))
	case "dotnet":
		add("nuget", first(env, in(".nuget", "packages"), "NUGET_PACKAGES"))
	case "maven":
		add("maven-repository", in(".m2", "repository"))
		add("maven-wrapper", in(".m2", "wrapper"))
	case "gradle":
		gradle := first(env, in(".gradle"), "GRADLE_USER_HOME")
		add("gradle-caches", filepath.Join(gradle, "caches"))
		add("gradle-wrapper", filepath.Join(gradle, "wrapper"))
	}
	return folders
}

// storeName begins the keys of entries that have the same folders.
func (i Installation) storeName() string {
	if i.store != "" {
		return i.store
	}
	return i.Manager
}

// first returns the value of the first of names that is set in env.
func first(env []string, otherwise string, names ...string) string {
	for _, name := range names {
		if value := getenv(env, name); value != "" {
			return value
		}
	}
	return otherwise
}

func pluginRecipe(wants []byte, home string, place Place) Recipe {
	sum := sha256.Sum256(wants)
	pulumi := first(place.Env, filepath.Join(home, ".pulumi"), "PULUMI_HOME")
	return Recipe{
		Manager: "plugins",
		Key:     "plugins-" + place.OS + "-" + place.Arch + "-" + hex.EncodeToString(sum[:]),
		Folders: []Folder{
			{Name: "plugins", Path: filepath.Join(pulumi, "plugins"), Merge: true},
			{Name: "policies", Path: filepath.Join(pulumi, "policies"), Merge: true},
		},
	}
}

// following is, by manager, how many lines after one that names a package of
// Pulumi belong to it: where its version is.
var following = map[string]int{"npm": 1, "yarn": 1, "pnpm": 1, "bun": 1, "poetry": 1, "uv": 1, "maven": 2}

// wants returns what the project says of Pulumi's packages, which is what decides
// the plugins; empty when it says nothing. It is not understood, only compared.
func (p *project) wants(i Installation) ([]byte, error) {
	var b bytes.Buffer
	if p.runtime == "yaml" { // the types of the resources
		content, err := readBounded(filepath.Join(p.dir, p.file))
		return content, err
	}
	for _, section := range []any{p.plugins, p.packages} {
		if section != nil {
			if err := json.NewEncoder(&b).Encode(section); err != nil {
				return nil, fmt.Errorf("%s: plugins and packages: %w", p.file, err)
			}
		}
	}
	lines := map[string]bool{}
	for _, source := range i.sources {
		content, err := readBounded(source)
		if err != nil {
			return nil, err
		}
		left, group := 0, ""
		for line := range bytes.Lines(content) {
			text := strings.TrimSpace(string(line))
			switch {
			case strings.Contains(strings.ToLower(text), "pulumi"):
				group, left = text, following[i.Manager]
			case left > 0:
				group, left = group+" "+text, left-1
			default:
				continue
			}
			if left == 0 {
				lines[group] = true
			}
		}
	}
	wanted := make([]string, 0, len(lines))
	for line := range lines {
		wanted = append(wanted, line)
	}
	slices.Sort(wanted)
	for _, line := range wanted {
		b.WriteString(line + "\n")
	}
	return b.Bytes(), nil
}

// mostSource bounds what is read of one lock file.
const mostSource = 64 << 20

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, mostSource+1))
	if err == nil && len(content) > mostSource {
		err = fmt.Errorf("%s is larger than %d MiB", path, mostSource>>20)
	}
	return content, err
}

// sumOf returns the sha256 of a file as sha256sum prints it, and of several that
// of their sums.
func sumOf(files []string) (string, error) {
	var all strings.Builder
	for _, file := range files {
		content, err := readBounded(file)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(content)
		if len(files) == 1 {
			return hex.EncodeToString(sum[:]), nil
		}
		fmt.Fprintf(&all, "%x  %s\n", sum, filepath.Base(file))
	}
	sum := sha256.Sum256([]byte(all.String()))
	return hex.EncodeToString(sum[:]), nil
}

func withPython(sum, dir string, env []string) (string, error) {
	python, err := lookPath("python3", dir, env)
	if err == nil {
		python, err = filepath.EvalSymlinks(python)
	}
	if err != nil {
		return "", fmt.Errorf("python3: %w", err)
	}
	both := sha256.Sum256([]byte(sum + " " + python))
	return hex.EncodeToString(both[:]), nil
}

// keyPart keeps of a text what may be part of a key.
func keyPart(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' {
			return r
		}
		return '_'
	}, text)
}
