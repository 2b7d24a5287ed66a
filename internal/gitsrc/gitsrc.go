// Package gitsrc puts the source of a deployment into a directory: one commit
// of a git repository, with a normal .git beside it, so that whatever looks for
// git.head later finds it. It is not a general git client: it never pushes.
//
// It speaks git's protocol itself, and leaves keeping the objects and writing
// the files to one of two engines: the git command, where there is one, or
// go-git. Checkout is the whole of it. Credentials reach it in Request.Auth alone (or in
// the URL, out of which they are taken) and stay in memory: they are in no file,
// no remote URL, no argument, no message.
package gitsrc

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/longshore-run/longshore/internal/mirror"
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
	// Archive says that URL is that of an archive (.tar.gz, .tgz or .zip), which
	// is downloaded and unpacked instead.
	Archive bool
	// Anonymous says that URL needs no credentials, because it is a secret itself:
	// its query is shown nowhere.
	Anonymous bool
	// Branch is a branch, a tag or a full ref name (refs/...). Commit is a full
	// or short commit hash. At most one is set; neither means the branch that
	// the remote calls HEAD.
	Branch, Commit string
	// RepoDir is the folder of the project, relative to the root of the
	// repository. It must be a directory of the checkout and stay within it.
	RepoDir string
	// Lift makes what RepoDir holds the whole of Dir, without the repository
	// around it, as a template is used.
	Lift bool
	// Full asks for every file of the commit. Else, where RepoDir is set and git
	// and the server can, only the files that the project seems to need are got.
	Full bool
	// NoSubmodules leaves the folders of submodules empty.
	NoSubmodules bool
	// NoLFS leaves the pointer files of Git LFS as they are.
	NoLFS bool
	// Mirror keeps what is fetched for later checkouts. May be nil.
	Mirror *mirror.Shelf
	// Dir is where the work tree goes. It must not exist or be empty. When
	// Checkout fails, Dir is left as it was found.
	Dir  string
	Auth Auth
	// Engine is the git that does the work.
	Engine Engine
	// KnownHosts are the files that say which SSH host keys to trust. Nil means
	// DefaultKnownHosts. The keys of the large public hosts are built in.
	KnownHosts []string
	// LearnHosts is a known_hosts file in which the key of a host is noted that no
	// file knows; it is trusted then. Empty means that such hosts are refused.
	LearnHosts string
	// CA holds certificates, in PEM form, of authorities to trust beside those of
	// the system.
	CA []byte
	// Timeout ends a checkout that takes longer. Zero means an hour.
	Timeout time.Duration
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

// String says in one line what was checked out, for people.
func (r Result) String() string {
	return fmt.Sprintf("%q by %s", r.Subject, r.Author)
}

const (
	dialTimeout  = 30 * time.Second
	stallTimeout = 60 * time.Second
	totalTimeout = time.Hour
	retries      = 3 // attempts after the first, for faults of the network
	firstWait    = time.Second
)

// checkout is one Checkout under way.
type checkout struct {
	req       Request
	dir       string      // Request.Dir, absolute
	module    string      // path of the submodule that this is, below the first repository
	depth     int         // how many repositories this one is a submodule of
	git       *gitCommand // nil for go-git
	at        location
	cred      Auth
	mask      func(string) string
	progress  *progress
	transport http.RoundTripper
	bearer    bool // the server wants the token as a bearer token
	refused   bool // the server refused to send the commit by itself
	noFilter  bool // the server refused to leave out objects
	noMirror  bool // the mirror was of no use
	attempt
	stall     time.Duration
	firstWait time.Duration
}

// attempt is what one attempt at a checkout has come to.
type attempt struct {
	fromStore bool            // objects came out of the mirror
	shallow   []plumbing.Hash // the commits that they are of
	entry     *mirror.Entry   // for what the server sends; nil for none
}

// Checkout fetches one commit, without its history and without tags where the
// server allows that, and puts its files into r.Dir. It returns soon after ctx
// ends. The text of its errors, of type *Error, is for the user: what was tried,
// what the other side said, what to check; no credential is in it.
func Checkout(ctx context.Context, r Request) (Result, error) {
	return start(ctx, r, stallTimeout, firstWait)
}

func start(ctx context.Context, r Request, stall, firstWait time.Duration) (Result, error) {
	c, err := newCheckout(r, stall, firstWait)
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.req.Timeout, errTooLong)
	defer cancel()
	result, err := c.run(ctx)
	if err != nil {
		return Result{}, c.explain(ctx, err)
	}
	return result, nil
}

func newCheckout(r Request, stall, firstWait time.Duration) (*checkout, error) {
	at, err := parseLocation(r.URL)
	if err != nil {
		return nil, err
	}
	if r.KnownHosts == nil {
		r.KnownHosts = DefaultKnownHosts(os.Getenv)
	}
	if r.Timeout == 0 {
		r.Timeout = totalTimeout
	}
	transport, err := newTransport(r.CA)
	if err != nil {
		return nil, err
	}
	c := &checkout{req: r, at: at, cred: at.credentials(r.Auth), transport: transport, stall: stall, firstWait: firstWait}
	mask := newMask(at, c.cred)
	if _, query, ok := strings.Cut(at.path, "?"); ok && r.Anonymous {
		inner := mask
		mask = func(s string) string { return strings.ReplaceAll(inner(s), query, "[secret]") }
	}
	if r.Auth.Token != c.cred.Token || r.Auth.Password != c.cred.Password {
		inner, given := mask, newMask(at, r.Auth) // given, but of no use for this URL: hide it all the same
		mask = func(s string) string { return given(inner(s)) }
	}
	c.mask = mask
	c.progress = &progress{out: r.Progress, mask: mask, every: time.Second}
	return c, nil
}

// tried says what was tried, for error messages.
func (c *checkout) tried() string {
	what := "get " + c.at.String()
	if c.module != "" {
		what = "get submodule " + c.module + " from " + c.at.String()
	}
	switch {
	case c.req.Commit != "":
		what += ", commit " + c.req.Commit
	case c.req.Branch != "":
		what += ", branch " + c.req.Branch
	}
	return what
}
