package control

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// SealKeyBytes is the length of the key that NewSealer takes.
const SealKeyBytes = 32

// sealVersion is the first byte of everything sealed, so that another scheme
// can follow one day.
const sealVersion = 1

// ErrNotSealed means that a text was not sealed with this key, not for this
// context, or was changed since.
var ErrNotSealed = errors.New("not sealed by this service for this stack")

// NewSealer returns a Sealer that uses AES-256-GCM under key. What it seals is
// a version byte, a random nonce of 12 bytes and the ciphertext; the context is
// authenticated with it and not part of it.
func NewSealer(key []byte) (Sealer, error) {
	if len(key) != SealKeyBytes {
		return nil, fmt.Errorf("secrets key: %d bytes, want %d", len(key), SealKeyBytes)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("secrets key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("secrets key: %w", err)
	}
	return aesSealer{aead}, nil
}

type aesSealer struct{ aead cipher.AEAD }

func (s aesSealer) Seal(clear []byte, context string) ([]byte, error) {
	size := s.aead.NonceSize()
	out := make([]byte, 1+size, 1+size+len(clear)+s.aead.Overhead())
	out[0] = sealVersion
	rand.Read(out[1:])                                            // never fails, by its documentation
	return s.aead.Seal(out, out[1:], clear, []byte(context)), nil // #nosec G407 -- the nonce is random, see above
}

func (s aesSealer) Open(sealed []byte, context string) ([]byte, error) {
	size := s.aead.NonceSize()
	if len(sealed) < 1+size+s.aead.Overhead() || sealed[0] != sealVersion {
		return nil, ErrNotSealed
	}
	clear, err := s.aead.Open(nil, sealed[1:1+size], sealed[1+size:], []byte(context))
	if err != nil {
		return nil, ErrNotSealed
	}
	return clear, nil
}
