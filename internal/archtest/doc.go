// Package archtest holds the rules of the source tree as tests: which package
// may depend on which, and that every package says what it is for. It has no
// code of its own; see docs/architecture.md for the picture.
package archtest
