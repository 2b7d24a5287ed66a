package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/longshore-run/longshore/internal/control"
)

// tx is one transaction on one connection. It implements control.Tx.
type tx struct {
	ctx  context.Context // of the statements
	conn *sql.Conn
	now  time.Time
	// prepared calls f with the statement of a text, which is f's until it
	// returns.
	prepared func(text string, f func(*sql.Stmt) error) error
}

var _ control.Tx = (*tx)(nil)

// begin starts the transaction that f runs in, commits it when f returns nil
// and rolls it back otherwise. No other code begins a transaction.
func begin(ctx context.Context, conn *sql.Conn, how string, f func() error) (err error) {
	if _, err := conn.ExecContext(ctx, how); err != nil {
		// Should an earlier rollback not have worked, then this one does.
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return wrap(err)
	}
	committed := false
	defer func() {
		if committed {
			return
		}
		if _, rollbackErr := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); rollbackErr != nil && err == nil {
			err = wrap(rollbackErr)
		}
	}()
	if err := f(); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		return wrap(err)
	}
	committed = true
	return nil
}

// View runs f in a transaction that only reads.
func (db *DB) View(ctx context.Context, f func(control.Tx) error) (err error) {
	if err := db.present(); err != nil {
		return err
	}
	r, err := db.reader(ctx)
	if err != nil {
		return err
	}
	defer func() { db.giveBack(r, err) }()
	return begin(ctx, r.conn, "BEGIN", func() error {
		return f(&tx{ctx: ctx, conn: r.conn, now: db.now().UTC(), prepared: func(text string, f func(*sql.Stmt) error) error {
			stmt, err := r.stmts.get(ctx, r.conn, text)
			if err != nil {
				return wrap(err)
			}
			return f(stmt)
		}})
	})
}

// Now returns the one time of the transaction.
func (t *tx) Now() time.Time { return t.now }

// stamp returns it as the database keeps it.
func (t *tx) stamp() int64 { return t.now.UnixNano() }

// nanos returns how the database keeps a time, at how a Go program does.
func nanos(v time.Time) int64 {
	if v.IsZero() {
		return 0
	}
	return v.UnixNano()
}

func at(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// exec runs a statement that returns nothing.
func (t *tx) exec(text string, args ...any) error {
	_, err := t.affected(text, args...)
	return err
}

// affected runs a statement and returns how many rows it changed.
func (t *tx) affected(text string, args ...any) (n int64, err error) {
	err = t.prepared(text, func(stmt *sql.Stmt) error {
		res, err := stmt.ExecContext(t.ctx, args...)
		if err != nil {
			return wrap(err)
		}
		n, err = res.RowsAffected()
		return wrap(err)
	})
	return n, err
}

// must runs a statement that has to change one row. Otherwise it fails with
// missing.
func (t *tx) must(missing error, text string, args ...any) error {
	n, err := t.affected(text, args...)
	if err == nil && n == 0 {
		return missing
	}
	return err
}

// scan reads the columns of one row.
type scan func(dest ...any) error

// row runs a query for one row and returns what reads it.
func (t *tx) row(text string, args ...any) scan {
	return func(dest ...any) error {
		return t.prepared(text, func(stmt *sql.Stmt) error {
			err := stmt.QueryRowContext(t.ctx, args...).Scan(dest...)
			if errors.Is(err, sql.ErrNoRows) {
				return control.ErrNotFound
			}
			return wrap(err)
		})
	}
}

// each runs a query and calls f for every row until f returns false.
func (t *tx) each(f func(scan) (bool, error), text string, args ...any) error {
	return t.prepared(text, func(stmt *sql.Stmt) error {
		rows, err := stmt.QueryContext(t.ctx, args...)
		if err != nil {
			return wrap(err)
		}
		defer func() { _ = rows.Close() }() // rows.Err has said what was wrong
		for rows.Next() {
			more, err := f(rows.Scan)
			if err != nil || !more {
				return err
			}
		}
		return wrap(rows.Err())
	})
}

// list runs a query and reads every row by read.
func list[T any](t *tx, read func(scan) (T, error), text string, args ...any) ([]T, error) {
	var all []T
	err := t.each(func(s scan) (bool, error) {
		v, err := read(s)
		all = append(all, v)
		return true, err
	}, text, args...)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// wrap gives a broken rule of uniqueness and a database that cannot be used the
// names that control knows, and says of everything else where it came from.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("database: %w", err)
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return fmt.Errorf("%w: %w", control.ErrConflict, err)
	}
	switch e.Code() & 0xff { // the rest of an extended code says where it happened
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return &control.UnavailableError{Reason: "another program holds a lock on it", Err: err}
	case sqlite3.SQLITE_FULL:
		return &control.UnavailableError{Reason: "its disk is full", Err: err}
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM:
		return &control.UnavailableError{Reason: "it cannot be read or written", Err: err}
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return &control.UnavailableError{Reason: "it is damaged", Err: err}
	}
	return fmt.Errorf("database: %w", err)
}
