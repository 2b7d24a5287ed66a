package dirlock_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/dirlock"
)

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := dirlock.Take(dir, "data directory", "longshore-server")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("data directory %s is in use by another longshore-server (process %d on ", dir, os.Getpid())
	if _, err := dirlock.Take(dir, "data directory", "longshore-server"); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Take() = %v, want %q", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := dirlock.Take(dir, "data directory", "longshore-server")
	if err != nil {
		t.Fatalf("Take() = %v once the first has given it free", err)
	}
	second.Close()
}

func TestADirectoryThatIsNotThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/missing"
	if _, err := dirlock.Take(dir, "working directory", "longshore-agent"); err == nil || !strings.Contains(err.Error(), "working directory "+dir+" cannot be used") {
		t.Errorf("Take() = %v", err)
	}
}
