package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/longshore-run/longshore/internal/control"
)

// secretsKey reads the key that seals secrets at rest, and makes it on the
// first start. It needs the data directory's lock: two servers would make two.
func secretsKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil {
		if len(key) != control.SealKeyBytes {
			return nil, fmt.Errorf("key file %s: %d bytes, want %d; restore it from your backup, the stored secrets cannot be read without it", path, len(key), control.SealKeyBytes)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file: %w", err)
	}
	key = make([]byte, control.SealKeyBytes)
	rand.Read(key) // never fails, by its documentation
	return key, writeSecret(path, key)
}

// writeSecret puts content into a file of mode 0600 that is there whole or not
// at all.
func writeSecret(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(file.Name()) // no file any more after the rename
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
