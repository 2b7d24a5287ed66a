package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/longshore-run/longshore/internal/control"
)

// maxBatch is how many updates may share one commit.
const maxBatch = 64

var errClosed = errors.New("database: closed")

// update is one call of Update on its way through the writer.
type update struct {
	ctx  context.Context
	f    func(control.Tx) error
	err  error
	done chan struct{}
}

// Update hands f to the writer. Updates that wait at the same time share one
// commit, and so one wait for the disk; each has a savepoint of its own, so
// that one which fails takes nothing of the others with it.
func (db *DB) Update(ctx context.Context, f func(control.Tx) error) error {
	u := &update{ctx: ctx, f: f, done: make(chan struct{})}
	select {
	case db.queue <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.closed:
		return errClosed
	}
	select {
	case <-u.done: // also when ctx has ended: only the writer knows what became of it
		return u.err
	case <-db.closed:
		// The writer may still answer; it has ended once it will not.
		db.writer.Wait()
		select {
		case <-u.done:
			return u.err
		default:
			return errClosed
		}
	}
}

// writer owns the connection that writes and its prepared statements.
type writer struct {
	db    *DB
	conn  *sql.Conn
	stmts statements
}

// run serves the queue until the DB is closed.
func (w *writer) run() {
	defer w.close()
	batch := make([]*update, 0, maxBatch)
	for {
		select {
		case u := <-w.db.queue:
			batch = w.gather(append(batch[:0], u))
			w.commit(batch)
		case <-w.db.closed:
			return
		}
	}
}

// gather adds what is waiting to batch.
func (w *writer) gather(batch []*update) []*update {
	for len(batch) < maxBatch {
		select {
		case u := <-w.db.queue:
			batch = append(batch, u)
		default:
			return batch
		}
	}
	return batch
}

// commit runs the batch in one transaction and answers all of it.
func (w *writer) commit(batch []*update) {
	// The statements do not see the callers' contexts: an interrupted write
	// would roll back the whole transaction, the other updates included.
	err := w.inTx(context.Background(), func(t *tx) error {
		if err := w.db.present(); err != nil {
			return err
		}
		wrote := false
		for _, u := range batch {
			if err := w.one(t, u, len(batch) > 1); err != nil {
				return err
			}
			wrote = wrote || u.err == nil
		}
		if !wrote {
			return errNothing
		}
		return nil
	})
	for _, u := range batch {
		if err != nil && !errors.Is(err, errNothing) && u.err == nil {
			u.err = err
		}
		close(u.done)
	}
}

// errNothing rolls back a transaction in which every update failed.
var errNothing = errors.New("nothing to commit")

// one runs one update of a batch. It returns an error only when the whole
// transaction is lost.
func (w *writer) one(t *tx, u *update, shared bool) error {
	if u.err = u.ctx.Err(); u.err != nil {
		return nil //nolint:nilerr // it is the error of this update only
	}
	if shared {
		if err := t.exec("SAVEPOINT one"); err != nil {
			return err
		}
	}
	u.err = guard(t, u.f)
	if u.err == nil {
		u.err = u.ctx.Err() // ended meanwhile: nobody would hear of it
	}
	if !shared {
		return nil
	}
	if u.err != nil {
		if err := t.exec("ROLLBACK TO SAVEPOINT one"); err != nil {
			// A disk that is full, for one, ends the whole transaction.
			return errors.Join(u.err, err)
		}
	}
	return t.exec("RELEASE SAVEPOINT one")
}

// guard keeps a bug in one update from ending the writer of all.
func guard(t *tx, f func(control.Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in a transaction: %v\n%s", r, debug.Stack())
		}
	}()
	return f(t)
}

// inTx runs f in a transaction that writes, under one time stamp.
func (w *writer) inTx(ctx context.Context, f func(*tx) error) error {
	return begin(ctx, w.conn, "BEGIN IMMEDIATE", func() error {
		return f(&tx{ctx: ctx, conn: w.conn, now: w.db.now().UTC(), prepared: func(text string, f func(*sql.Stmt) error) error {
			stmt, err := w.stmts.get(ctx, w.conn, text)
			if err != nil {
				return wrap(err)
			}
			return f(stmt)
		}})
	})
}

// close gives the connection back. There is nothing left that could be lost.
func (w *writer) close() {
	w.stmts.close()
	_ = w.conn.Close()
}
