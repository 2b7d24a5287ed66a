// Package gitsrc puts the source of a deployment into a directory: one commit
// of a git repository, with a normal .git beside it, so that whatever looks for
// git.head later finds it. It is not a general git client: it never pushes, and
// it never learns from or writes to the git configuration of the machine.
//
// Checkout is the whole of it. Credentials reach it in Request.Auth alone and
// stay in memory: they are in no file, no remote URL, no argument, no message.
package gitsrc

import (
	"context"
	"errors"
	"io"
	"time"
)

// Auth holds the credentials of one repository. At most one kind is used: over
// SSH the key (or else the password), over HTTP the token, or else user name
// and password. What is set here wins over what the URL holds.
type Auth struct {
	// Token is an access token for HTTP. The user name that goes with it is the
	// one that the host is known to want, unless Username says another.
	Token string
	// Username and Password are for basic authentication.
	Username, Password string
	// SSHKey is a private key in OpenSSH or PEM form: ed25519, RSA or ECDSA.
	SSHKey []byte
	// SSHPassphrase opens SSHKey when that is encrypted.
	SSHPassphrase string
}

// Request says what to check out, and where to.
type Request struct {
	// URL is the repository: https://, http://, ssh://, git:// or user@host:path.
	URL string
	// Branch is a branch, a tag or a full ref name (refs/...). Commit is a full
	// or short commit hash. At most one is set; neither means the branch that
	// the remote calls HEAD.
	Branch, Commit string
	// RepoDir is the folder of the project, relative to the root of the
	// repository. It must be a directory of the checkout and stay within it.
	RepoDir string
	// Dir is where the work tree goes. It must not exist or be empty. When
	// Checkout fails, Dir is left as it was found.
	Dir  string
	Auth Auth
	// KnownHosts are the files that say which SSH host keys to trust. Nil means
	// DefaultKnownHosts. The keys of the large public hosts are built in.
	KnownHosts []string
	// Progress gets lines for people, at most about one a second. May be nil.
	Progress io.Writer
}

// Result is what a checkout put in place.
type Result struct {
	Commit string // the full hash
	// Ref is the full name of what was asked for ("refs/heads/main",
	// "refs/tags/v1"), or empty for a bare commit.
	Ref     string
	Author  string    // the name of the commit's author
	When    time.Time // when it was committed
	Subject string    // the first line of the commit's message, shortened
}

// Checkout fetches one commit, without its history and without tags where the
// server allows that, and puts its files into r.Dir. It returns soon after ctx
// ends. The text of its errors is for the user: what was tried, what the other
// side said, what to check; no credential is in it.
func Checkout(ctx context.Context, r Request) (Result, error) {
	return Result{}, errors.New("not implemented")
}
