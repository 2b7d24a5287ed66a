package store_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/store"
)

// TestTheQueueIsReadByItsIndex keeps a claim from becoming slower with every
// deployment that was ever made.
func TestTheQueueIsReadByItsIndex(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "longshore.db")
	open(t, path, time.Now).Close()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+store.NextForSQL, "p1", "", "acme")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(plan, "\n")
	if !strings.Contains(text, "SCAN d USING INDEX deployments_queue") || strings.Contains(text, "ORDER BY") {
		t.Errorf("the plan is not a walk along the queue:\n%s", text)
	}
}
