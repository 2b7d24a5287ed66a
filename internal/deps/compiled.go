package deps

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// prebuilt reports whether Pulumi.yaml names a program that is built already.
func (p *project) prebuilt(i *Installation) bool {
	binary := p.option("binary")
	if binary != "" {
		i.Why = fmt.Sprintf("nothing to install: %s names the binary %s", p.file, binary)
	}
	return binary != ""
}

func (p *project) planGo(i *Installation) error {
	if p.prebuilt(i) {
		return nil
	}
	dir, _ := p.find("go.mod")
	if dir == "" {
		return fmt.Errorf("runtime go, but there is no go.mod in %s or above: check repoDir and main", p.show(p.program))
	}
	module := p.show(filepath.Join(dir, "go.mod"))
	i.Manager, i.dir, i.pinned = "go", dir, true
	i.sources = []string{filepath.Join(dir, "go.mod")}
	if exists(dir, "go.sum") {
		i.sources = []string{filepath.Join(dir, "go.sum")}
	}
	if exists(dir, filepath.Join("vendor", "modules.txt")) {
		i.sources, i.store = []string{filepath.Join(dir, "vendor", "modules.txt")}, "go-vendored"
		i.Why = "nothing to install: the modules of " + module + " are vendored"
		return nil
	}
	i.Commands = []Command{{Dir: dir, Args: []string{"go", "mod", "download"}, For: module}}
	i.Why = fmt.Sprintf("go mod download in %s, because of %s", p.show(dir), module)
	return nil
}

func (p *project) planDotnet(i *Installation) error {
	if p.prebuilt(i) {
		return nil
	}
	var file, source string
	for _, kind := range []string{"*.csproj", "*.fsproj", "*.vbproj", "*.sln", "*.slnx"} {
		found, err := filepath.Glob(filepath.Join(globEscape(p.program), kind))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			file, source = p.show(found[0]), found[0]
			break
		}
	}
	if file == "" {
		return errors.New("runtime dotnet, but there is no project file (*.csproj, *.fsproj, *.vbproj) in " + p.show(p.program) + ": check repoDir and main")
	}
	args := []string{"dotnet", "restore"}
	if exists(p.program, "packages.lock.json") {
		source = filepath.Join(p.program, "packages.lock.json")
		args, file, i.pinned = append(args, "--locked-mode"), p.show(source), true
	}
	i.Manager, i.dir, i.sources = "dotnet", p.program, []string{source}
	i.Commands = []Command{{Dir: p.program, Args: args, For: file}}
	i.Why = fmt.Sprintf("%s in %s, because of %s", strings.Join(args, " "), p.show(p.program), file)
	return nil
}

func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// planJava has Maven get everything that it needs offline; Gradle has no such
// call, and gets what the program needs by compiling it.
func (p *project) planJava(i *Installation) {
	if p.prebuilt(i) {
		return
	}
	dir, found := p.find("pom.xml", "build.gradle", "build.gradle.kts")
	if dir == "" {
		i.Why = "nothing to install: there is no pom.xml and no build.gradle in " + p.show(p.program) + " or above"
		return
	}
	program, wrapper, args := "mvn", "mvnw", []string{"--batch-mode", "--no-transfer-progress", "dependency:go-offline"}
	if found[0] != "pom.xml" {
		program, wrapper, args = "gradle", "gradlew", []string{"--console=plain", "--no-daemon", "classes"}
	}
	if at, _ := p.find(wrapper); at != "" {
		program = filepath.Join(at, wrapper)
		if at == dir {
			program = "./" + wrapper
		}
	}
	i.Manager, i.dir, i.sources = "maven", dir, []string{filepath.Join(dir, "pom.xml")}
	if found[0] != "pom.xml" {
		i.Manager, i.sources = "gradle", []string{filepath.Join(dir, found[0])}
		for _, more := range []string{"gradle.lockfile", "settings.gradle", "settings.gradle.kts", "gradle/libs.versions.toml"} {
			if exists(dir, filepath.FromSlash(more)) {
				i.sources = append(i.sources, filepath.Join(dir, filepath.FromSlash(more)))
			}
		}
	}
	because := p.show(filepath.Join(dir, found[0]))
	if len(found) > 1 {
		i.Warnings = append(i.Warnings, strings.Join(found, ", ")+" are all there: "+found[0]+" is used")
	}
	i.Commands = []Command{{Dir: dir, Args: append([]string{program}, args...), For: because}}
	i.Why = fmt.Sprintf("%s in %s, because of %s", strings.Join(i.Commands[0].Args, " "), p.show(dir), because)
}
