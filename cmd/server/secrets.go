package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/longshore-run/longshore/internal/control"
)

// secretsKey returns the key of the secrets in the database, from secrets.key in
// dir. On a first start it makes one.
func secretsKey(dir, database string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unusable(dir, err)
	}
	path := filepath.Join(dir, "secrets.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(database); err == nil {
			return nil, fmt.Errorf("%s is missing, and the secrets in %s cannot be read without it: restore it from a backup", path, database)
		}
		key = make([]byte, control.SealKeyBytes)
		rand.Read(key) // never fails, by its documentation
		// Another server may be doing the same: the first one wins.
		err = place(path, key)
		if errors.Is(err, fs.ErrExist) {
			key, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, unusable(dir, err)
	}
	if len(key) != control.SealKeyBytes {
		return nil, fmt.Errorf("%s has %d bytes instead of %d: restore it from a backup", path, len(key), control.SealKeyBytes)
	}
	return key, nil
}

// place makes the file path, for this user alone, with all of content or not at
// all. It does not replace a file that is there.
func place(path string, content []byte) error {
	temporary, err := written(path, content)
	if err != nil {
		return err
	}
	defer os.Remove(temporary)
	return os.Link(temporary, path)
}

// written returns the name of a new file beside path, for this user alone, with
// content.
func written(path string, content []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // of mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// unusable explains an error of the data directory.
func unusable(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("data directory %s is not writable for this user: change its owner, or choose another with --data-dir", dir)
	}
	return fmt.Errorf("data directory %s cannot be used: %w: choose another with --data-dir", dir, err)
}

// firstStart makes the first user, when there is none, and hands over its token.
// The token is kept nowhere else, so the file it goes to is tried first.
func (p *plane) firstStart(ctx context.Context, stdout io.Writer) error {
	if p.tokenFile == "" {
		token, err := p.control.Bootstrap(ctx)
		if err == nil && token != "" {
			fmt.Fprintf(stdout, "user token (shown this once): %s\n", token)
		}
		return err
	}
	trial, err := written(p.tokenFile, nil)
	if err != nil {
		return fmt.Errorf("token file %s cannot be written: %w: choose another with --token-file", p.tokenFile, err)
	}
	if err := os.Remove(trial); err != nil {
		return fmt.Errorf("token file %s: %w", p.tokenFile, err)
	}
	token, err := p.control.Bootstrap(ctx)
	if err != nil || token == "" {
		return err
	}
	return replace(p.tokenFile, token)
}

// replace writes a token to path, for this user alone.
func replace(path, token string) error {
	temporary, err := written(path, []byte(token+"\n"))
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("write token to %s: %w", path, err)
	}
	return nil
}
