// Package mirror keeps what checkouts fetched for the checkouts after them, in
// files that only those can read who could fetch the same themselves.
//
// An entry is the pack of one commit, sealed under a key that is made of the
// commit and its topmost tree, as the git server gives them out. Whoever has
// these two may have everything below them, as git names things by what they
// hold; whoever has not finds, among files named by hashes, nothing to read. So a
// folder of entries can be shown to every job, and needs nobody who decides which
// job may see what: a job asks the server, with its own credentials, and what it
// is told there opens the entry.
//
// A Store is the agent's side, which holds the files and cannot read them. A Shelf
// is a job's: it looks into the store's folder, and puts what is new into a folder
// of its own, from which the agent takes it. Names, checksums and sizes are all
// that the agent goes by; that an entry holds what it should is for its reader to
// make sure of, as for a pack that came over the network.
package mirror

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// ErrBroken means that an entry is damaged, or is not what its name says.
var ErrBroken = errors.New("the entry of the mirror is damaged")

const keySize = 32

// Key opens one entry.
type Key []byte

// Name returns the name of the entry for a commit, given the commit's raw
// content. It says nothing about the commit to who does not have that.
func Name(commit []byte) string { return hex.EncodeToString(derive(commit, "longshore mirror name 1")) }

// NewKey returns the key of the entry for a commit, given the raw content of the
// commit and of its topmost tree.
func NewKey(commit, tree []byte) Key {
	both := sha256.Sum256(commit)
	return derive(append(both[:], tree...), "longshore mirror key 1")
}

func derive(from []byte, purpose string) []byte {
	// The error is for lengths that HKDF cannot give.
	out, _ := hkdf.Key(sha256.New, from, nil, purpose, keySize)
	return out
}

// validName reports whether a file name can be that of an entry.
func validName(name string) bool {
	raw, err := hex.DecodeString(name)
	return err == nil && len(raw) == keySize && hex.EncodeToString(raw) == name
}

// Header is what an entry says before its pack.
type Header struct {
	// Commit is the hash of the commit whose pack this is.
	Commit string `json:"commit"`
	// Base is the entry whose objects the pack relies on; nil for none.
	Base *Base `json:"base,omitempty"`
	// Depth is how many entries there are below this one.
	Depth int `json:"depth,omitempty"`
}

// Base is another entry, and what opens it: whoever may have a commit may have
// those that it follows.
type Base struct {
	Name string `json:"name"`
	Key  Key    `json:"key"`
}
