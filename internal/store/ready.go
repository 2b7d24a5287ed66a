package store

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/longshore-run/longshore/internal/control"
)

// probe is a question to the writer that all who ask at the same time share.
type probe struct {
	mu      sync.Mutex
	asking  chan struct{} // closed by the answer, nil while nobody asks
	err     error         // the last answer
	running sync.WaitGroup
}

// Ready reports whether the database can be read and written now. It writes
// something, because a disk that is full can still be read. It waits for the
// answer no longer than ctx lives.
func (db *DB) Ready(ctx context.Context) error {
	err := db.View(ctx, func(tx control.Tx) error {
		_, err := tx.HasUsers()
		return err
	})
	if err != nil {
		return err
	}
	select {
	case <-db.ask(): //nolint:contextcheck // the answer is for others, too
		db.probe.mu.Lock()
		defer db.probe.mu.Unlock()
		return db.probe.err
	case <-ctx.Done():
		return &control.UnavailableError{Reason: "it does not take a write in time", Err: context.Cause(ctx)}
	}
}

// ask asks the writer, unless somebody does already.
func (db *DB) ask() <-chan struct{} {
	p := &db.probe
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asking != nil {
		return p.asking
	}
	answered := make(chan struct{})
	select {
	case <-db.closed:
		p.err = errClosed
		close(answered)
		return answered
	default:
	}
	p.asking = answered
	p.running.Go(func() {
		err := db.Update(context.Background(), func(t control.Tx) error {
			// Another value each time: SQLite does not write what is there already.
			return t.(*tx).exec(`UPDATE probe SET written = written + 1`) //nolint:forcetypeassert // it is ours
		})
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err, p.asking = err, nil
		close(answered)
	})
	return answered
}

// present makes sure that the file of the database is still the one that was
// opened. What is written to a file without a name is lost with the process.
func (db *DB) present() error {
	info, err := os.Stat(db.path)
	if err == nil && os.SameFile(info, db.file) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%s is another file than the one that was opened", db.path)
	}
	return &control.UnavailableError{Reason: "its file is gone or was replaced", Err: err}
}
