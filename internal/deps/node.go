package deps

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// nodeLocks are the lock files of the package managers of Node.js, in the order
// in which they count when several lie in one directory and nothing says which
// one is meant.
var nodeLocks = []struct{ file, installer string }{
	{"yarn.lock", "yarn"},
	{"pnpm-lock.yaml", "pnpm"},
	{"bun.lock", "bun"},
	{"bun.lockb", "bun"},
	{"package-lock.json", "npm"},
	{"npm-shrinkwrap.json", "npm"},
}

// nodeChoice is which package manager to use, where, and why.
type nodeChoice struct {
	name, version string
	because       string // what names it; "" when nothing does
	dir           string // where the lock file is, or the nearest package.json
	lock          string // the lock file's name; "" for none
}

func (p *project) planNode(i *Installation) error {
	dir, _ := p.find("package.json")
	if dir == "" {
		return fmt.Errorf("runtime %s, but there is no package.json in %s or above: check repoDir and main", p.runtime, p.show(p.program))
	}
	named, err := p.namedNode(dir)
	if err != nil {
		return err
	}
	choice, warning := p.chooseNode(named, dir)
	if warning != "" {
		i.Warnings = append(i.Warnings, warning)
	}
	args := choice.args()
	command := Command{Dir: choice.dir, Args: args, For: choice.because}
	i.Manager, i.dir, i.pinned = choice.name, choice.dir, choice.lock != ""
	i.sources = []string{filepath.Join(choice.dir, "package.json")}
	if choice.lock != "" {
		i.sources = []string{filepath.Join(choice.dir, choice.lock)}
	}
	switch {
	case choice.name == "npm" && choice.lock == "package-lock.json":
		i.tree = filepath.Join(choice.dir, "node_modules")
		command.Kept = []string{"npm", "install", "--no-save", "--prefer-offline"} // "npm ci" removes node_modules first
	case choice.name == "yarn" && choice.berry():
		i.store = "yarn-berry"
	case choice.name == "yarn" && i.pinned:
		i.tree = filepath.Join(choice.dir, "node_modules")
	}
	i.Commands = []Command{command}
	i.Why = fmt.Sprintf("%s in %s, because of %s", strings.Join(args, " "), p.show(choice.dir), choice.because)
	return nil
}

// namedNode returns the package manager that Pulumi.yaml or else a package.json
// names; its name is "" when none does.
func (p *project) namedNode(dir string) (nodeChoice, error) {
	if p.runtime == "bun" {
		return nodeChoice{name: "bun", because: "runtime bun in " + p.file}, nil
	}
	name, err := p.chosen("packagemanager", "npm", "yarn", "pnpm", "bun")
	if err != nil {
		return nodeChoice{}, err
	}
	choice := nodeChoice{name: name, because: "packagemanager in " + p.file}
	p.upwards(func(at string) bool {
		spec := readPackage(at).PackageManager // "pnpm@9.1.0+sha512..."
		manager, version, _ := strings.Cut(spec, "@")
		switch {
		case choice.name == "" && isNode(manager):
			choice = nodeChoice{name: manager, version: version, because: "packageManager in " + p.show(filepath.Join(at, "package.json"))}
		case choice.name == manager:
			choice.version = version
		}
		return spec != ""
	})
	return choice, nil
}

func isNode(name string) bool {
	return name == "npm" || name == "yarn" || name == "pnpm" || name == "bun"
}

// chooseNode brings what is named and the lock files that are there together.
func (p *project) chooseNode(named nodeChoice, packageDir string) (choice nodeChoice, warning string) {
	dir, locks := p.nodeLocks(packageDir)
	choice = named
	choice.dir = packageDir
	for _, lock := range nodeLocks {
		if locks[lock.file] == "" || choice.lock != "" {
			continue
		}
		if choice.name == "" {
			choice.name, choice.because = lock.installer, p.show(filepath.Join(dir, lock.file))
		}
		if choice.name == lock.installer {
			choice.lock, choice.dir = lock.file, dir
		}
	}
	if choice.name == "" {
		choice.name, choice.because = "npm", p.show(filepath.Join(packageDir, "package.json"))+" (no lock file: versions are not pinned)"
	}
	var others []string
	for _, lock := range nodeLocks {
		if locks[lock.file] != "" && lock.installer != choice.name {
			others = append(others, p.show(filepath.Join(dir, lock.file)))
		}
	}
	if len(others) > 0 {
		warning = fmt.Sprintf("%s not used: %s is chosen by %s; remove the lock file that does not count, or name the package manager in %s",
			strings.Join(others, ", "), choice.name, choice.because, p.file)
	}
	return choice, warning
}

// nodeLocks returns the nearest directory with lock files that cover the
// package in packageDir: its own, or that of the workspace it belongs to.
func (p *project) nodeLocks(packageDir string) (dir string, locks map[string]string) {
	locks = map[string]string{}
	p.upwards(func(at string) bool {
		if at != packageDir && !strings.HasPrefix(packageDir+"/", at+"/") {
			return false // below the package
		}
		if at != packageDir && !hasMember(at, packageDir) {
			return false
		}
		for _, lock := range nodeLocks {
			if exists(at, lock.file) {
				dir, locks[lock.file] = at, lock.installer
			}
		}
		return dir != ""
	})
	return dir, locks
}

// packageJSON is what counts here of a package.json.
type packageJSON struct {
	PackageManager string          `json:"packageManager"`
	Workspaces     json.RawMessage `json:"workspaces"`
}

func readPackage(dir string) packageJSON {
	var pkg packageJSON
	if b, err := os.ReadFile(filepath.Join(dir, "package.json")); err == nil {
		_ = json.Unmarshal(b, &pkg) // the package manager itself will say what is wrong with it
	}
	return pkg
}

// hasMember reports whether the workspace whose root is at has the package in
// dir as a member.
func hasMember(at, dir string) bool {
	var patterns []string
	raw := readPackage(at).Workspaces
	if json.Unmarshal(raw, &patterns) != nil {
		var object struct {
			Packages []string `json:"packages"`
		}
		_ = json.Unmarshal(raw, &object)
		patterns = object.Packages
	}
	if b, err := os.ReadFile(filepath.Join(at, "pnpm-workspace.yaml")); err == nil {
		var doc struct {
			Packages []string `yaml:"packages"`
		}
		_ = yaml.Unmarshal(b, &doc)
		patterns = append(patterns, doc.Packages...)
	}
	rel, err := filepath.Rel(at, dir)
	if err != nil {
		return false
	}
	member := false
	for _, pattern := range patterns {
		pattern, not := strings.CutPrefix(pattern, "!")
		if globMatches(pattern, filepath.ToSlash(rel)) {
			member = !not
		}
	}
	return member
}

// globMatches knows *, ** and ?, which is what workspaces are written with.
func globMatches(pattern, path string) bool {
	pattern = strings.TrimSuffix(strings.TrimPrefix(pattern, "./"), "/")
	expr := regexp.QuoteMeta(pattern)
	expr = strings.NewReplacer(`\*\*/`, `(?:.*/)?`, `\*\*`, `.*`, `\*`, `[^/]*`, `\?`, `[^/]`).Replace(expr)
	re, err := regexp.Compile("^" + expr + "$")
	return err == nil && re.MatchString(path)
}

// args returns the command that respects the lock file.
func (c nodeChoice) args() []string {
	locked := c.lock != ""
	switch c.name {
	case "yarn":
		return c.yarnArgs(locked)
	case "pnpm":
		if locked {
			return []string{"pnpm", "install", "--frozen-lockfile"}
		}
		return []string{"pnpm", "install", "--no-frozen-lockfile"} // CI=true would make it the default
	case "bun":
		if locked {
			return []string{"bun", "install", "--frozen-lockfile"}
		}
		return []string{"bun", "install"}
	}
	if locked {
		return []string{"npm", "ci"}
	}
	return []string{"npm", "install"}
}

func (c nodeChoice) yarnArgs(locked bool) []string {
	switch berry := c.berry(); {
	case berry && locked:
		return []string{"yarn", "install", "--immutable"}
	case berry:
		return []string{"yarn", "install", "--no-immutable"} // CI=true would make immutable the default
	case locked:
		return []string{"yarn", "install", "--frozen-lockfile", "--non-interactive"}
	}
	return []string{"yarn", "install", "--non-interactive"}
}

// berry reports whether yarn is of version 2 or later, whose flags differ.
func (c nodeChoice) berry() bool {
	if c.version != "" {
		major, _, _ := strings.Cut(c.version, ".")
		n, err := strconv.Atoi(major)
		return err != nil || n >= 2 // "berry", "stable", ...
	}
	if b, err := os.ReadFile(filepath.Join(c.dir, "yarn.lock")); err == nil && len(bytes.TrimSpace(b)) > 0 {
		return bytes.Contains(b, []byte("\n__metadata:")) || bytes.HasPrefix(b, []byte("__metadata:"))
	}
	return exists(c.dir, ".yarnrc.yml")
}
