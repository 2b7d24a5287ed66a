package store_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// TestAFirstDatabaseIsMigrated opens a database as the first schema left it,
// with a job in the middle of its work.
func TestAFirstDatabaseIsMigrated(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "longshore.db")
	schema, err := os.ReadFile("migrations/0001_start.sql")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, path, string(schema)+`
		CREATE TABLE migrations (version BIGINT NOT NULL PRIMARY KEY, applied BIGINT NOT NULL);
		INSERT INTO migrations VALUES (1, 1);
		INSERT INTO organizations VALUES ('acme', 'p1', 1);
		INSERT INTO users VALUES ('u1', 'ada', '', 1);
		INSERT INTO pools VALUES ('p1', 'acme', 'one', '', 1, 1, 1);
		INSERT INTO stacks VALUES ('s1', 'acme', 'shop', 'prod', 1, 1);
		INSERT INTO deployments VALUES ('d1', 's1', 1, 'running', 'update', '', 'u1', '', '{}', 0, 1, 1);
		INSERT INTO jobs VALUES ('j1', 'd1', 'r1', 'p1', 'running', FALSE, 'h', '', '', '', '', 5, 6, 7, 0, 8);
		INSERT INTO steps VALUES ('j1', 0, 'Setup', 'running', 6, 7, 1);
		INSERT INTO log_chunks VALUES ('j1', 0, 0, 1, 'x');
		INSERT INTO tokens VALUES (X'00', 'job', 'acme', NULL, NULL, 'j1', 5), (X'01', 'pool', 'acme', NULL, 'p1', NULL, 5);`)
	db := open(t, path, time.Now)
	err = db.View(t.Context(), func(tx control.Tx) error {
		j, err := tx.JobOf("d1")
		if err != nil {
			return err
		}
		if j.ID != "j1" || j.Status != api.StatusRunning || j.Claimed.UnixNano() != 5 || !j.Confirmed.Equal(j.Claimed) || j.LastBeat.UnixNano() != 8 {
			t.Errorf("job = %+v, want what it was, and confirmed", j)
		}
		if len(j.Steps) != 1 || j.Steps[0].Lines != 1 || j.Steps[0].Status != api.StepRunning {
			t.Errorf("steps = %+v, want what they were", j.Steps)
		}
		_, err = tx.LogCursor("j1", 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(t.Context(), func(tx control.Tx) error {
		// What refers to what has followed the tables to their new places.
		if err := tx.AddToken(control.Token{Hash: control.TokenHash{2}, Kind: control.KindJob, Organization: "acme", JobID: "nobody"}); err == nil {
			t.Error("a token of a job that is not there was added")
		}
		return tx.DeletePool("p1")
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, path, `SELECT count(*) FROM tokens`); n != 1 {
		t.Errorf("%d tokens after the pool was deleted, want that of the job", n)
	}
	if n := count(t, path, `SELECT count(*) FROM pragma_foreign_key_check`); n != 0 {
		t.Errorf("%d rows refer to what is not there", n)
	}
}
