package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/longshore-run/longshore/internal/control"
)

// statements are the prepared statements of one connection, by their text.
type statements map[string]*sql.Stmt

// get returns the statement of a text. It belongs to the connection.
func (s statements) get(ctx context.Context, conn *sql.Conn, text string) (*sql.Stmt, error) {
	if stmt, ok := s[text]; ok {
		return stmt, nil
	}
	stmt, err := conn.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	s[text] = stmt
	return stmt, nil
}

func (s statements) close() {
	for _, stmt := range s {
		_ = stmt.Close() // its errors have been seen when it ran
	}
	clear(s)
}

// reader is a connection that reads, with its statements. It is opened when it
// is first needed.
type reader struct {
	conn  *sql.Conn
	stmts statements
}

// reader lends a reader. Give it back.
func (db *DB) reader(ctx context.Context) (*reader, error) {
	select {
	case <-db.closed:
		return nil, errClosed
	default:
	}
	var r *reader
	select {
	case r = <-db.idle:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-db.closed:
		return nil, errClosed
	}
	if r.conn != nil {
		return r, nil
	}
	conn, err := db.read.Conn(ctx)
	if err != nil {
		db.idle <- r
		return nil, wrap(err)
	}
	r.conn = conn
	return r, nil
}

// giveBack takes a reader back after a transaction that ended with err. When
// that casts doubt on the connection, the next one gets another.
func (db *DB) giveBack(r *reader, err error) {
	var unavailable *control.UnavailableError
	if errors.As(err, &unavailable) || errors.Is(err, sql.ErrConnDone) {
		r.close()
	}
	db.idle <- r
}

func (r *reader) close() {
	r.stmts.close()
	if r.conn != nil {
		_ = r.conn.Close()
		r.conn = nil
	}
}
