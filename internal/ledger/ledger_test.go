package ledger_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/ledger"
)

func open(t *testing.T, dir string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func entry(id string, claimed time.Time) ledger.Entry {
	return ledger.Entry{
		Work:    api.AgentWorkflowDefinition{JobID: id, TypeSpecificID: "d-" + id, JobToken: "lsj-" + id},
		Claimed: claimed,
	}
}

func TestWhatAKilledProcessWasWritingIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	half := filepath.Join(dir, ".new-123")
	if err := os.WriteFile(half, []byte(`{"work":{"jobToken":"lsj-half`), 0o600); err != nil {
		t.Fatal(err)
	}
	if entries, err := open(t, dir).All(); len(entries) != 0 || err != nil {
		t.Errorf("All() = %v, %v", entries, err)
	}
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("the half file is still there: %v", err)
	}
}

func TestTheNextProcessReadsWhatTheLastOneWrote(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	now := time.Date(2026, 11, 25, 1, 2, 3, 0, time.UTC)
	l := open(t, dir)
	late, early, odd, done := entry("late", now.Add(time.Hour)), entry("early", now), entry("../odd/id", now.Add(2*time.Hour)), entry("done", now)
	for _, e := range []ledger.Entry{late, early, odd, done} {
		if err := l.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	early.Started, early.Workload, early.Operation, early.Timeout = now.Add(time.Second), "c0ffee", api.OperationUpdate, api.Duration(time.Hour)
	early.End = &ledger.End{Outcome: "out-of-memory", Failed: true, Step: 3, Line: "why"}
	if err := l.Put(early); err != nil {
		t.Fatal(err)
	}
	if err := l.Drop("done"); err != nil {
		t.Fatal(err)
	}
	if err := l.Drop("never there"); err != nil {
		t.Errorf("Drop() = %v, want forgetting to be idempotent", err)
	}

	next := open(t, dir)
	if next.Owner() != l.Owner() || len(l.Owner()) < 16 {
		t.Errorf("Owner() = %q, then %q", l.Owner(), next.Owner())
	}
	got, err := next.All()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]ledger.Entry{early, late, odd}, got); diff != "" {
		t.Errorf("All() (-want +got):\n%s", diff)
	}
	if other := open(t, t.TempDir()); other.Owner() == l.Owner() {
		t.Error("two directories have the same owner")
	}
}

func TestOnlyTheAgentsUserReadsIt(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	l := open(t, dir)
	e := entry("j", time.Now())
	e.Work.OIDCToken = "oidc-secret"
	if err := l.Put(e); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", dir, info.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
		if text, _ := os.ReadFile(filepath.Join(dir, f.Name())); strings.Contains(string(text), "oidc-secret") {
			t.Errorf("%s holds what only the executor needs", f.Name())
		}
	}
}

func TestADamagedEntryHidesNoOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	if err := l.Put(entry("whole", time.Now())); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"torn.json": `{"work":{"jobID":"torn","jobToken":"lsj-secret`, "foreign.json": `{"work":{"jobID":"other","jobToken":"x"}}`, "empty.json": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.All()
	if len(got) != 1 || got[0].Work.JobID != "whole" {
		t.Errorf("All() = %v", got)
	}
	for _, want := range []string{"torn.json", "foreign.json", "empty.json", "put aside"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "lsj-secret") {
			t.Errorf("All() = %v, want it to name %s", err, want)
		}
	}
	if _, err := l.All(); err != nil {
		t.Errorf("All() = %v, want what is put aside to be told once", err)
	}
}

func TestNilRemembersNothing(t *testing.T) {
	t.Parallel()
	var l *ledger.Ledger
	if err := l.Put(entry("j", time.Now())); err != nil {
		t.Error(err)
	}
	if all, err := l.All(); len(all) != 0 || err != nil || l.Owner() != "" || l.Drop("j") != nil {
		t.Errorf("All() = %v, %v", all, err)
	}
}
