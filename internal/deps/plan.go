package deps

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Plan decides how to install the dependencies of the Pulumi project in dir. It
// looks at the files of dir and of the directories above it up to root, which
// must hold dir, and runs nothing.
func Plan(dir, root string) (Installation, error) {
	p, err := readProject(dir, root)
	if err != nil {
		return Installation{}, err
	}
	i := Installation{Runtime: p.runtime}
	switch p.runtime {
	case "nodejs", "bun":
		err = p.planNode(&i)
	case "python":
		err = p.planPython(&i)
	case "go":
		err = p.planGo(&i)
	case "dotnet":
		err = p.planDotnet(&i)
	case "java":
		p.planJava(&i)
	case "yaml":
		i.Why = "nothing to install: the program is YAML"
	default:
		i.Why = fmt.Sprintf("nothing to install: no installer is known for runtime %q", p.runtime)
	}
	return i, err
}

// project is what Pulumi.yaml and the places around it say.
type project struct {
	dir     string // where Pulumi.yaml is
	program string // where the program is: dir, or below it by "main"
	root    string // beyond which nothing is looked for
	file    string // the name of Pulumi.yaml
	runtime string
	options map[string]any

	plugins, packages any // as Pulumi.yaml has them
}

func readProject(dir, root string) (*project, error) {
	var (
		b    []byte
		err  error
		file string
	)
	for _, file = range []string{"Pulumi.yaml", "Pulumi.yml"} {
		if b, err = os.ReadFile(filepath.Join(dir, file)); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no Pulumi.yaml in %s: check sourceContext.git.repoDir", dir)
	}
	if err != nil {
		return nil, err
	}
	var doc struct {
		Main    string    `yaml:"main"`
		Runtime yaml.Node `yaml:"runtime"`

		Plugins  any `yaml:"plugins"`
		Packages any `yaml:"packages"`
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", filepath.Join(dir, file), err)
	}
	p := &project{dir: dir, program: dir, root: root, file: file, plugins: doc.Plugins, packages: doc.Packages}
	if err := p.readRuntime(doc.Runtime); err != nil {
		return nil, err
	}
	if doc.Main != "" {
		main := filepath.Join(dir, filepath.FromSlash(doc.Main))
		if rel, err := filepath.Rel(root, main); err != nil || !filepath.IsLocal(rel) {
			return nil, fmt.Errorf("%s: main %q leaves the repository", file, doc.Main)
		}
		if info, err := os.Stat(main); err == nil && !info.IsDir() {
			main = filepath.Dir(main)
		}
		p.program = main
	}
	return p, nil
}

// readRuntime reads both forms: a name, or a mapping of name and options.
func (p *project) readRuntime(node yaml.Node) error {
	var full struct {
		Name    string         `yaml:"name"`
		Options map[string]any `yaml:"options"`
	}
	var err error
	switch node.Kind {
	case 0:
		return fmt.Errorf("%s names no runtime: add, for instance, \"runtime: nodejs\"", p.file)
	case yaml.ScalarNode:
		full.Name = node.Value
	default:
		err = node.Decode(&full)
	}
	if err != nil || full.Name == "" {
		return fmt.Errorf("%s: runtime must be a name, or a mapping with name and options", p.file)
	}
	p.runtime, p.options = strings.ToLower(full.Name), full.Options
	return nil
}

// option returns a text option of the runtime, or "".
func (p *project) option(name string) string {
	text, _ := p.options[name].(string)
	return text
}

// chosen returns an option that must be one of allowed, or "".
func (p *project) chosen(name string, allowed ...string) (string, error) {
	value := strings.ToLower(p.option(name))
	if value == "" {
		return "", nil
	}
	for _, a := range allowed {
		if a == value {
			return value, nil
		}
	}
	return "", fmt.Errorf("%s: runtime option %s is %q, and must be one of %s", p.file, name, p.option(name), strings.Join(allowed, ", "))
}

// upwards calls visit for the program's directory and each above it up to the
// root, until visit returns true.
func (p *project) upwards(visit func(dir string) bool) {
	for at := p.program; ; at = filepath.Dir(at) {
		if visit(at) || at == p.root || filepath.Dir(at) == at {
			return
		}
	}
}

// find returns the nearest directory, from the program's upwards, that holds one
// of names, and which of them it holds; "" when there is none.
func (p *project) find(names ...string) (dir string, found []string) {
	p.upwards(func(at string) bool {
		for _, name := range names {
			if exists(at, name) {
				dir, found = at, append(found, name)
			}
		}
		return dir != ""
	})
	return dir, found
}

// show names a place as seen from the root.
func (p *project) show(path string) string {
	if rel, err := filepath.Rel(p.root, path); err == nil {
		return filepath.ToSlash(rel)
	}
	return path
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}
