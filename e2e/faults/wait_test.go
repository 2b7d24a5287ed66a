package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// waitFor waits until a file holds all texts.
func waitFor(t *testing.T, path string, texts ...string) {
	t.Helper()
	s := &site{t: t}
	for ctx := s.bounded(); ; pause(ctx) {
		content, _ := os.ReadFile(path)
		missing := 0
		for _, text := range texts {
			if !strings.Contains(string(content), text) {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s lacks one of %q:\n%s", path, texts, content)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// settle waits until nothing of any job is in the agents' directories.
func (s *site) settle() {
	s.t.Helper()
	for ctx := s.bounded(); ; pause(ctx) {
		left, err := filepath.Glob(filepath.Join(s.Dir, "agent-*", "jobs", "*"))
		if err != nil {
			s.t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if ctx.Err() != nil {
			s.t.Fatalf("left behind: %q", left)
		}
	}
}
