// Package redact masks secrets in a stream of bytes. However the stream is cut
// into writes, the result is the same, and no more than a possible beginning of
// a secret is ever held back.
//
// What is masked: every byte that belongs to an occurrence of a needle. Needles
// are made of each secret, which is first freed of white space around it:
//   - the secret itself, and each line of a secret that has several;
//   - its base64, in the standard and the URL alphabet, padded or not, at each of
//     the three positions it can have in a longer base64 text, and, for a secret
//     whose base64 is broken into lines of 64 or 76 characters, each such line.
//     Where the secret does not end on a boundary of six bits, a character that
//     holds up to four bits of it, and as many of its neighbour's, stays.
//
// Occurrences that overlap are replaced together by one Mask, so that no part of
// a secret shows because it shares bytes with another; those that only touch get
// one each.
//
// Secrets, and lines, shorter than MinLength bytes are not masked: they would be
// found everywhere, and masking them would tell more than it hides.
//
// The main types are Set, the secrets, and Writer, one stream.
package redact

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// Mask stands where a secret was.
	Mask = "[secret]"
	// MinLength is the length in bytes below which a secret is not masked.
	MinLength = 4
)

// Set is a growing set of secrets. It is safe for concurrent use.
type Set struct {
	mu      sync.Mutex // held while adding
	known   map[string]bool
	current atomic.Pointer[matcher]
}

// NewSet returns a Set of the given secrets.
func NewSet(secrets ...string) *Set {
	s := &Set{known: map[string]bool{}}
	s.current.Store(newMatcher(nil))
	s.Add(secrets...)
	return s
}

// Add adds secrets. They are masked in what is written, to any Writer of s, from
// now on, and in what a Writer still holds.
func (s *Set) Add(secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.known)
	for _, secret := range secrets {
		for needle := range needles(secret) {
			s.known[needle] = true
		}
	}
	if len(s.known) == before {
		return
	}
	all := make([]string, 0, len(s.known))
	for needle := range s.known {
		all = append(all, needle)
	}
	slices.Sort(all)
	s.current.Store(newMatcher(all))
}

// Mask returns text with every secret masked. It is for whole texts, such as an
// error message; a stream needs a Writer.
func (s *Set) Mask(text string) string {
	var b strings.Builder
	w := New(&b, s)
	_, _ = w.Write([]byte(text)) // a Builder takes everything
	_ = w.Flush()
	return b.String()
}

// Longest returns the length of the longest needle: the most that a Writer ever
// holds back.
func (s *Set) Longest() int { return s.current.Load().longest }
