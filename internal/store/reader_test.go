package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/control"
)

// TestAViewThatIsCutHurtsNoOther ends views in the middle of their work, more
// often than there are connections, each time by a query that the next view
// makes again.
func TestAViewThatIsCutHurtsNoOther(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "longshore.db"), time.Now)
	const pools = 200
	err := db.Update(t.Context(), func(tx control.Tx) error {
		if err := tx.EnsureOrganization("acme"); err != nil {
			return err
		}
		for i := range pools {
			if err := tx.AddPool(control.Pool{ID: fmt.Sprint(i), Organization: "acme", Name: fmt.Sprint(i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	look := func(tx control.Tx) error {
		all, err := tx.Pools("acme")
		if err == nil && len(all) != pools {
			err = fmt.Errorf("%d pools, want %d", len(all), pools)
		}
		return err
	}
	var views sync.WaitGroup
	for i := range 100 {
		views.Go(func() {
			ctx, cut := context.WithCancelCause(t.Context())
			defer cut(nil)
			err := db.View(ctx, func(tx control.Tx) error {
				if i%2 == 0 {
					go cut(errors.New("the caller hung up"))
				}
				return errors.Join(look(tx), look(tx))
			})
			if i%2 == 1 && err != nil || err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("view %d = %v", i, err)
			}
		})
	}
	views.Wait()
	for range 20 { // every connection
		if err := db.View(t.Context(), look); err != nil {
			t.Errorf("a view after those that were cut = %v", err)
		}
	}
	func() {
		defer func() { _ = recover() }()
		_ = db.View(t.Context(), func(control.Tx) error { panic("a bug") })
	}()
	if err := db.View(t.Context(), look); err != nil {
		t.Errorf("a view after one that panicked = %v", err)
	}
}
