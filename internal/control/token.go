package control

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Prefixes of the three kinds of token, so that people and secret scanners can
// tell them apart.
const (
	PrefixPool = "lsp-"
	PrefixUser = "lsu-"
	PrefixJob  = "lsj-"
)

// TokenHash is what is kept of a token. A token is 32 random bytes, so that a
// plain SHA-256 cannot be searched.
type TokenHash [sha256.Size]byte

// newToken returns a token with the given prefix.
func newToken(prefix string) string {
	var b [32]byte
	rand.Read(b[:]) // never fails, by its documentation
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// hashToken returns the hash of token, and whether it looks like a token at all.
func hashToken(token string) (TokenHash, bool) {
	for _, prefix := range []string{PrefixPool, PrefixUser, PrefixJob} {
		if strings.HasPrefix(token, prefix) {
			return sha256.Sum256([]byte(token)), true
		}
	}
	return TokenHash{}, false
}
