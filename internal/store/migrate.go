package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to date, one transaction a migration.
func migrate(ctx context.Context, w *writer) error {
	files, err := fs.Glob(migrations, "migrations/*.sql") // sorted, and so is their order
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	var done int64
	err = w.inTx(ctx, func(tx *tx) error {
		if err := tx.exec(`CREATE TABLE IF NOT EXISTS migrations (version BIGINT NOT NULL PRIMARY KEY, applied BIGINT NOT NULL)`); err != nil {
			return err
		}
		return tx.row(`SELECT COALESCE(MAX(version), 0) FROM migrations`)(&done)
	})
	if err != nil {
		return err
	}
	if done > int64(len(files)) {
		return fmt.Errorf("schema version %d is newer than this program, which knows up to %d: use the newer program", done, len(files))
	}
	for i, name := range files {
		version := int64(i) + 1
		if number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_"); number != fmt.Sprintf("%04s", strconv.FormatInt(version, 10)) {
			return fmt.Errorf("migration %s is out of order, want number %d", name, version)
		}
		if version <= done {
			continue
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read migration: %w", err)
		}
		err = w.inTx(ctx, func(tx *tx) error {
			if _, err := tx.conn.ExecContext(tx.ctx, string(text)); err != nil {
				return err
			}
			return tx.exec(`INSERT INTO migrations (version, applied) VALUES ($1, $2)`, version, tx.stamp())
		})
		if err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
	}
	return nil
}
