package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/control"
)

func TestReady(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "longshore.db")
	db := open(t, path, time.Now)
	var all sync.WaitGroup
	for range 50 { // they share few probes
		all.Go(func() {
			if err := db.Ready(t.Context()); err != nil {
				t.Errorf("Ready of an open database = %v", err)
			}
		})
	}
	all.Wait()

	// A file of that name, but another one.
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	write(t, path, "")
	var unavailable *control.UnavailableError
	for what, err := range map[string]error{
		"Ready":  db.Ready(t.Context()),
		"View":   db.View(t.Context(), func(control.Tx) error { return nil }),
		"Update": db.Update(t.Context(), func(control.Tx) error { return nil }),
	} {
		if !errors.As(err, &unavailable) || unavailable.Reason != "its file is gone or was replaced" {
			t.Errorf("%s without the file = %v, want an UnavailableError", what, err)
		}
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if err := db.Ready(t.Context()); err != nil {
		t.Errorf("Ready once the file is back = %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no time"))
	if err := db.Ready(ctx); err == nil {
		t.Error("Ready of an ended context = nil")
	}
	db.Close()
	if err := db.Ready(t.Context()); err == nil {
		t.Error("Ready of a closed database = nil")
	}
}

// TestReadyWhileItIsClosed is for the race detector and goleak.
func TestReadyWhileItIsClosed(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "longshore.db"), time.Now)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for db.Ready(t.Context()) == nil {
			}
		})
	}
	all.Go(func() { db.Close() })
	all.Wait()
}
