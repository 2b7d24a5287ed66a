package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// project reads the fields of Pulumi.yaml that matter here. It looks upwards, as
// the CLI does.
func project() (fields map[string]string, ok bool) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, false
	}
	for {
		for _, name := range []string{"Pulumi.yaml", "Pulumi.yml"} {
			if f, err := os.Open(filepath.Join(dir, name)); err == nil {
				defer f.Close()
				return readProject(f), true
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil, false
		}
		dir = parent
	}
}

// readProject reads "key: value" at two levels: "a: b" as a, and "c:" followed
// by "  d: e" as c.d.
func readProject(f *os.File) map[string]string {
	fields := map[string]string{}
	section := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		if !strings.HasPrefix(line, " ") {
			section = key
			fields[key] = value
			continue
		}
		fields[section+"."+strings.TrimSpace(key)] = value
	}
	return fields
}

// backend is the URL of the place where state is kept.
func (s *standin) backend() string {
	if url := s.env("PULUMI_BACKEND_URL"); url != "" {
		return url
	}
	if fields, ok := project(); ok && fields["backend.url"] != "" {
		return fields["backend.url"]
	}
	return "https://api.pulumi.com"
}

// stacksFile is the list of stacks of a file:// backend, "" under any other.
func (s *standin) stacksFile() string {
	dir, ok := strings.CutPrefix(s.backend(), "file://")
	if !ok {
		return ""
	}
	if rest, home := strings.CutPrefix(dir, "~"); home {
		dir = s.env("HOME") + rest
	}
	return filepath.Join(dir, ".pulumi", "standin-stacks")
}

func (s *standin) stacks() []string {
	content, err := os.ReadFile(s.stacksFile())
	if err != nil {
		return nil
	}
	return strings.Fields(string(content))
}

func (s *standin) stackExists(name string) bool {
	if s.stacksFile() == "" {
		return true
	}
	for _, have := range s.stacks() {
		if have == name {
			return true
		}
	}
	return false
}

func (s *standin) createStack(name string) int {
	path := s.stacksFile()
	if path == "" || s.stackExists(name) {
		return s.fail(255, "stack '%s' already exists", name)
	}
	if !strings.HasPrefix(name, "organization/") && strings.Count(name, "/") == 2 {
		return s.fail(255, "organization name must be 'organization'")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return s.fail(255, "%v", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return s.fail(255, "%v", err)
	}
	defer f.Close()
	fmt.Fprintln(f, name)
	fmt.Fprintf(s.out, "Created stack '%s'\n", name)
	return 0
}

func (s *standin) stack() int {
	name := s.arg(2)
	if name == "" {
		name = s.flags["--stack"]
	}
	switch sub := s.arg(1); sub {
	case "init":
		return s.createStack(name)
	case "select":
		switch {
		case s.stackExists(name):
			return 0
		case s.has("--create"):
			return s.createStack(name)
		}
		return s.fail(6, "no stack named '%s' found", name) // the code of CLI 3.259
	case "ls":
		fmt.Fprintln(s.out, strings.Join(s.stacks(), "\n"))
		return 0
	default:
		return s.fail(255, "unknown stack command %q", sub)
	}
}
