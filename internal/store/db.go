// Package store keeps the control plane's state in a database by database/sql.
// Its SQL is one text for SQLite (modernc.org/sqlite, no cgo) and, later,
// Postgres; the schema is in migrations, which are embedded, ordered and only
// go forward. DB implements control.Store; package storetest says what that
// means.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/dirlock"
)

// DB is an open database. One goroutine, the writer, owns the only connection
// that writes; readers have a pool of their own and never wait for it.
type DB struct {
	now    func() time.Time
	path   string
	file   os.FileInfo // of the database
	lock   *dirlock.Lock
	write  *sql.DB
	read   *sql.DB
	idle   chan *reader // a place for each connection of read
	queue  chan *update
	closed chan struct{}  // tells the writer to stop
	writer sync.WaitGroup // the writer
	close  sync.Once
	probe  probe
}

var _ control.Store = (*DB)(nil)

// Open opens the SQLite database at path, which is made with its directory when
// it is not there, locks the directory for this process and applies the
// migrations that are missing. now is the clock of all transactions. The
// caller closes the DB.
func Open(ctx context.Context, path string, now func() time.Time) (*DB, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, notWritable(dir, err)
	}
	lock, err := dirlock.Take(dir, dataDirectory, "longshore-server")
	if err != nil {
		return nil, err
	}
	db := &DB{now: now, path: path, lock: lock, queue: make(chan *update, maxBatch), closed: make(chan struct{})}
	if err := db.open(ctx, path); err != nil {
		return nil, errors.Join(err, db.closeParts())
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, path string) error {
	// SQLite gives its side files the mode of the database, so it is made first.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return notWritable(filepath.Dir(path), err)
	}
	db.file, err = f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return notWritable(filepath.Dir(path), err)
	}
	if db.write, err = sql.Open("sqlite", dsn(path, false)); err != nil {
		return fmt.Errorf("open database %s: %w", path, err)
	}
	db.write.SetMaxOpenConns(1)
	if db.read, err = sql.Open("sqlite", dsn(path, true)); err != nil {
		return fmt.Errorf("open database %s: %w", path, err)
	}
	readers := max(4, runtime.GOMAXPROCS(0))
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	db.idle = make(chan *reader, readers)
	for range readers {
		db.idle <- &reader{stmts: statements{}}
	}
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return explain(path, err)
	}
	w := &writer{db: db, conn: conn, stmts: statements{}}
	if err := migrate(ctx, w); err != nil {
		w.close()
		return explain(path, err)
	}
	db.writer.Go(w.run)
	return nil
}

// Close waits for the transactions in hand, ends the connections and gives the
// data directory free. Later calls have no effect.
func (db *DB) Close() error {
	var err error
	db.close.Do(func() {
		db.probe.mu.Lock() // so that none begins any more
		close(db.closed)
		db.probe.mu.Unlock()
		db.writer.Wait()
		db.probe.running.Wait()
		for range cap(db.idle) {
			(<-db.idle).close()
		}
		err = db.closeParts()
	})
	return err
}

func (db *DB) closeParts() error {
	var errs []error
	for _, pool := range []*sql.DB{db.read, db.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(append(errs, db.lock.Close())...)
}

// dataDirectory is what messages call the directory of the database.
const dataDirectory = "data directory"

func notWritable(dir string, err error) error { return dirlock.NotWritable(dir, dataDirectory, err) }

// dsn returns the data source name of path. Pragmas belong here: executed as a
// statement one would reach a single connection of the pool.
func dsn(path string, readOnly bool) string {
	q := url.Values{"_pragma": {
		"busy_timeout(5000)",
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"foreign_keys(1)",
		"wal_autocheckpoint(8192)",     // pages: 32 MiB, so that a flood of logs does not checkpoint all the time
		"journal_size_limit(67108864)", // bytes the WAL shrinks to afterwards
	}}
	// In KiB. The kernel keeps the file's pages as well, so that more than the
	// hot ones would be memory held twice, once for each connection.
	if readOnly {
		q["_pragma"] = append(q["_pragma"], "cache_size(-1024)", "query_only(1)")
	} else {
		q["_pragma"] = append(q["_pragma"], "cache_size(-8192)")
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// explain turns the errors of opening that a person can do something about
// into a message that says what.
func explain(path string, err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("open database %s: %w", path, err)
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("database %s is locked by another program: close it (an sqlite3 shell, a backup?) and start again", path)
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("database %s is no database or is damaged: restore it from a backup, or move it away to start anew: %w", path, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("database %s is not writable for this user: change the owner of it and its directory: %w", path, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("database %s: the disk is full", path)
	}
	return fmt.Errorf("open database %s: %w", path, err)
}
