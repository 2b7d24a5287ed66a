package deps

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// pythonFiles are the files that say what a Python program needs, in the order
// in which they count when several lie in one directory and Pulumi.yaml names no
// toolchain.
var pythonFiles = []struct{ file, toolchain string }{
	{"uv.lock", "uv"},
	{"poetry.lock", "poetry"},
	{"requirements.txt", "pip"},
}

func (p *project) planPython(i *Installation) error {
	toolchain, err := p.chosen("toolchain", "pip", "poetry", "uv")
	if err != nil {
		return err
	}
	named := toolchain != ""
	because := "toolchain in " + p.file
	var names []string
	for _, f := range pythonFiles {
		names = append(names, f.file)
	}
	dir, found := p.find(names...)
	if !named {
		toolchain, because = "pip", "runtime python in "+p.file
		for _, f := range slices.Backward(pythonFiles) {
			if slices.Contains(found, f.file) {
				toolchain, because = f.toolchain, p.show(filepath.Join(dir, f.file))
			}
		}
		if len(found) == 0 && exists(p.program, "pyproject.toml") {
			toolchain, because = pyproject(p.program), p.show(filepath.Join(p.program, "pyproject.toml"))
		}
		if len(found) > 1 {
			i.Warnings = append(i.Warnings, fmt.Sprintf("%s are all there: %s is chosen by %s; name the toolchain in %s",
				strings.Join(found, ", "), toolchain, because, p.file))
		}
	}
	switch toolchain {
	case "uv":
		p.planUv(i, because)
	case "poetry":
		p.planPoetry(i, because)
	default:
		p.planPip(i, because)
	}
	// Pulumi looks for the packages where Pulumi.yaml says. When it says
	// nothing, it takes the python of the PATH.
	if p.option("virtualenv") != "" || named && toolchain != "pip" {
		i.Activate = ""
	}
	i.Manager, i.dir = toolchain, i.Commands[0].Dir
	var commands []string
	for _, c := range i.Commands {
		commands = append(commands, strings.Join(c.Args, " "))
	}
	i.Why = fmt.Sprintf("%s in %s, because of %s", strings.Join(commands, " && "), p.show(i.Commands[0].Dir), because)
	return nil
}

// pyproject tells whose project file it is, when there is no lock file.
func pyproject(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "pyproject.toml"))
	switch {
	case err != nil:
		return "pip"
	case strings.Contains(string(b), "[tool.poetry"):
		return "poetry"
	default:
		return "uv"
	}
}

// virtualenv returns the path of the virtual environment: the one Pulumi.yaml
// names, else fallback in the given directory.
func (p *project) virtualenv(dir, fallback string) string {
	named := p.option("virtualenv")
	switch {
	case named == "":
		return filepath.Join(dir, fallback)
	case filepath.IsAbs(named):
		return filepath.Clean(named)
	}
	return filepath.Join(p.dir, filepath.FromSlash(named))
}

// pinned reports whether each requirement of a file names one version. What such
// a file asks for is the same tomorrow; options, and files that it includes, are
// not followed and so are not pinned.
func pinned(file string) bool {
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	text := strings.NewReplacer("\\\r\n", " ", "\\\n", " ").Replace(string(b))
	any := false
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		requirement, _, _ := strings.Cut(line, ";") // a condition
		requirement, _, _ = strings.Cut(requirement, " --hash")
		requirement = strings.TrimSpace(requirement)
		if requirement == "" {
			continue
		}
		if _, version, ok := strings.Cut(requirement, "=="); !ok || strings.HasPrefix(requirement, "-") || strings.ContainsAny(version, "*,") {
			return false
		}
		any = true
	}
	return any
}

// relative writes a path of a command as seen from where it runs, when it is
// below there.
func relative(dir, path string) string {
	if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

func (p *project) planPip(i *Installation, because string) {
	dir, _ := p.find("requirements.txt")
	if dir == "" {
		dir = p.program
	}
	venv := p.virtualenv(p.dir, "venv")
	python := filepath.Join(venv, "bin", "python")
	i.Activate = venv
	i.Commands = []Command{{Dir: dir, Args: []string{"python3", "-m", "venv", relative(dir, venv)}, For: because, Unless: python}}
	install := []string{relative(dir, python), "-m", "pip", "install"}
	switch requirements, pyproject := filepath.Join(dir, "requirements.txt"), filepath.Join(dir, "pyproject.toml"); {
	case exists(dir, "requirements.txt"):
		install = append(install, "-r", "requirements.txt")
		i.sources = []string{requirements}
		if i.pinned = pinned(requirements); i.pinned {
			i.tree = venv
		}
	case exists(dir, "pyproject.toml"):
		install = append(install, "-e", ".")
		i.sources = []string{pyproject}
	default:
		i.Warnings = append(i.Warnings, "there is no requirements.txt: the virtual environment stays empty")
		return
	}
	i.Commands = append(i.Commands, Command{Dir: dir, Args: install, For: because})
}

func (p *project) planPoetry(i *Installation, because string) {
	dir, _ := p.find("pyproject.toml")
	if dir == "" {
		dir = p.program
	}
	i.Activate = filepath.Join(dir, ".venv")
	i.sources = []string{filepath.Join(dir, "pyproject.toml")}
	if exists(dir, "poetry.lock") {
		i.sources, i.pinned, i.tree = []string{filepath.Join(dir, "poetry.lock")}, true, i.Activate
	}
	i.Commands = []Command{{
		Dir: dir, Args: []string{"poetry", "install", "--no-interaction", "--no-root"}, For: because,
		Env: []string{"POETRY_VIRTUALENVS_IN_PROJECT=true"},
	}}
}

func (p *project) planUv(i *Installation, because string) {
	dir, _ := p.find("pyproject.toml")
	locked, _ := p.find("uv.lock")
	if dir == "" { // uv as a faster pip
		if dir, _ = p.find("requirements.txt"); dir == "" {
			dir = p.program
		}
		venv := p.virtualenv(p.dir, ".venv")
		i.Activate, i.sources = venv, []string{filepath.Join(dir, "requirements.txt")}
		i.Commands = []Command{
			{Dir: dir, Args: []string{"uv", "venv", relative(dir, venv)}, For: because, Unless: filepath.Join(venv, "bin", "python")},
			{Dir: dir, Args: []string{"uv", "pip", "install", "--python", relative(dir, venv), "-r", "requirements.txt"}, For: because},
		}
		return
	}
	command := Command{Dir: dir, Args: []string{"uv", "sync"}, For: because}
	place := dir
	i.sources = []string{filepath.Join(dir, "pyproject.toml")}
	if locked != "" {
		i.sources, i.pinned = []string{filepath.Join(locked, "uv.lock")}, true
		command.Args, place = append(command.Args, "--frozen"), locked
	}
	i.Activate = p.virtualenv(place, ".venv")
	if p.option("virtualenv") != "" {
		command.Env = []string{"UV_PROJECT_ENVIRONMENT=" + i.Activate}
	}
	i.Commands = []Command{command}
}
