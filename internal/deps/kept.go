package deps

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// unlike says why "npm ci" must have its word on what lies in dir: it refuses a
// lock file that does not fit package.json, where "npm install" would quietly put
// other versions in place. "" when the lock file fits.
func unlike(dir string) string {
	content, err := readBounded(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return "there is no package-lock.json to compare with"
	}
	var lock struct {
		Packages map[string]wishes `json:"packages"`
	}
	if json.Unmarshal(content, &lock) != nil || len(lock.Packages) == 0 {
		return "package-lock.json is of a kind that is not known here"
	}
	for place, locked := range lock.Packages {
		if strings.HasPrefix(place, "node_modules/") || strings.Contains(place, "/node_modules/") {
			continue // a package of somebody else's
		}
		name := filepath.Join(filepath.FromSlash(place), "package.json")
		if !filepath.IsLocal(name) {
			return "package-lock.json names " + place
		}
		var here wishes
		content, err := readBounded(filepath.Join(dir, name))
		if err != nil || json.Unmarshal(content, &here) != nil || !here.equal(locked) {
			return name + " does not fit package-lock.json"
		}
	}
	return ""
}

// whole reports whether the node_modules in dir holds each package of
// package-lock.json in its version, by npm's own list of what it installed, and
// npm would have no script of the project to run. Then npm has nothing to do.
// Unlike must have found nothing.
func whole(dir string) bool {
	type pkg struct {
		Version   string `json:"version"`
		Integrity string `json:"integrity"`
		Resolved  string `json:"resolved"`
		Link      bool   `json:"link"`
		Optional  bool   `json:"optional"`
	}
	read := func(name string, v any) bool {
		content, err := readBounded(filepath.Join(dir, name))
		return err == nil && json.Unmarshal(content, v) == nil
	}
	var wanted, have struct {
		Packages map[string]pkg `json:"packages"`
	}
	if !read("package-lock.json", &wanted) || !read("node_modules/.package-lock.json", &have) || len(have.Packages) == 0 {
		return false
	}
	for place, w := range wanted.Packages {
		if !strings.Contains("/"+place, "/node_modules/") { // the project itself, or a workspace
			var here struct {
				Scripts map[string]string `json:"scripts"`
			}
			if !read(filepath.Join(filepath.FromSlash(place), "package.json"), &here) {
				return false
			}
			for _, name := range []string{"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare", "dependencies"} {
				if here.Scripts[name] != "" {
					return false
				}
			}
			continue
		}
		if !strings.HasPrefix(place, "node_modules/") {
			return false // below a workspace, which is not kept
		}
		if h, ok := have.Packages[place]; !ok && !w.Optional || ok && (h.Version != w.Version || h.Integrity != w.Integrity || h.Resolved != w.Resolved || h.Link != w.Link) {
			return false
		}
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(place))); err != nil && !w.Optional {
			return false
		}
	}
	for place := range have.Packages {
		if _, ok := wanted.Packages[place]; !ok {
			return false
		}
	}
	return true
}

// wishes are what a package.json asks for, and what package-lock.json says that
// it asks for.
type wishes struct {
	Dependencies map[string]string `json:"dependencies"`
	Dev          map[string]string `json:"devDependencies"`
	Optional     map[string]string `json:"optionalDependencies"`
	Peer         map[string]string `json:"peerDependencies"`
}

func (w wishes) equal(o wishes) bool {
	return maps.Equal(w.Dependencies, o.Dependencies) && maps.Equal(w.Dev, o.Dev) &&
		maps.Equal(w.Optional, o.Optional) && maps.Equal(w.Peer, o.Peer)
}

// mostScript bounds the files of a virtual environment that Settle looks into.
const mostScript = 1 << 20

// Settle mends what was restored for a recipe, when it was installed in another
// directory: the programs of a virtual environment name its path.
func Settle(r Recipe) error {
	if !r.Installed || r.Manager != "pip" && r.Manager != "poetry" {
		return nil
	}
	for _, f := range r.Folders {
		if err := settle(f.Path); err != nil {
			return err
		}
	}
	return nil
}

func settle(venv string) error {
	root, err := os.OpenRoot(venv) // nothing outside is written, whatever the links say
	if err != nil {
		return err
	}
	defer root.Close()
	activate, err := root.ReadFile("bin/activate")
	if err != nil {
		return err
	}
	before := ""
	for line := range strings.Lines(string(activate)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		if value, ok := strings.CutPrefix(line, "VIRTUAL_ENV="); ok {
			if value = strings.Trim(value, `"'`); filepath.IsAbs(value) {
				before = value
			}
		}
	}
	if before == venv || before == "" {
		return nil
	}
	return fs.WalkDir(root.FS(), "bin", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		return move(root, path, before, venv)
	})
}

// move writes one path for another in a script.
func move(root *os.Root, name, before, after string) error {
	f, err := root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, mostScript+1))
	if err != nil || len(content) > mostScript || bytes.IndexByte(content, 0) >= 0 || !bytes.Contains(content, []byte(before)) {
		return err
	}
	content = bytes.ReplaceAll(content, []byte(before), []byte(after))
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	return f.Close()
}
