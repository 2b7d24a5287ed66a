// Package e2e holds the end-to-end tests: the built programs, started as an
// operator starts them, against a real git server, sshd and Docker engine. Each
// test is a promise that a user could hold Longshore to.
package e2e
