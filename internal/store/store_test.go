package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/store"
	"github.com/longshore-run/longshore/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string, now func() time.Time) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), path, now)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T, now func() time.Time) control.Store {
		return open(t, filepath.Join(t.TempDir(), "longshore.db"), now)
	})
}

func TestASecondServerIsToldWhoTheFirstIs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "longshore.db") // the directory is made
	first := open(t, path, time.Now)
	_, err := store.Open(t.Context(), path, time.Now)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d on ", os.Getpid())) {
		t.Fatalf("Open of a data directory in use = %v, want an error that names its owner", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q is more than one line", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("a second Close = %v, want no effect", err)
	}
	open(t, path, time.Now)
}

func TestAClosedDatabaseSaysSo(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "longshore.db"), time.Now)
	db.Close()
	for what, err := range map[string]error{
		"Update": db.Update(t.Context(), func(control.Tx) error { return nil }),
		"View":   db.View(t.Context(), func(control.Tx) error { return nil }),
	} {
		if err == nil {
			t.Errorf("%s of a closed database worked", what)
		}
	}
}

func TestWhatCannotBeOpenedSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string) (path string)
		want    string
	}{
		"the data directory is a file": {func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "data"), "")
			return filepath.Join(dir, "data", "longshore.db")
		}, "cannot be used"},
		"a file that is no database": {func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "longshore.db"), strings.Repeat("not a database ", 100))
			return filepath.Join(dir, "longshore.db")
		}, "restore it from a backup"},
		"a database of a newer program": {func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "longshore.db")
			open(t, path, time.Now).Close()
			exec(t, path, `INSERT INTO migrations (version, applied) VALUES (99, 0)`)
			return path
		}, "use the newer program"},
		"a directory that may not be written": {func(t *testing.T, dir string) string {
			if os.Geteuid() == 0 {
				t.Skip("root may write everywhere")
			}
			if err := os.Chmod(dir, 0o500); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "longshore.db")
		}, "is not writable for this user"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := store.Open(t.Context(), c.prepare(t, t.TempDir()), time.Now)
			if err == nil {
				db.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Open = %v, want one line that says %q", err, c.want)
			}
		})
	}
}

func TestADatabaseLockedByAnotherProgramSaysSo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "longshore.db")
	other, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	db, err := store.Open(ctx, path, time.Now)
	if err == nil {
		db.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "is locked by another program: close it") {
		t.Errorf("Open = %v, want an error that says the database is locked", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, path, text string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, path, query string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
