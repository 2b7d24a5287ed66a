package gitsrc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/longshore-run/longshore/internal/unpack"
)

// Kind says which of the things that go wrong with a checkout went wrong.
type Kind string

// The kinds of failure. Each has one message.
const (
	KindRequest        Kind = "request"          // the request itself makes no sense
	KindHostUnknown    Kind = "host-unknown"     // the name does not resolve
	KindRefused        Kind = "refused"          // nobody listens there
	KindTimeout        Kind = "timeout"          // no answer, or no byte for a while
	KindNetwork        Kind = "network"          // any other fault of the connection
	KindProxy          Kind = "proxy"            // a proxy that does not let us through
	KindTLS            Kind = "tls"              // a certificate that is not trusted
	KindUnauthorized   Kind = "unauthorized"     // 401
	KindForbidden      Kind = "forbidden"        // 403
	KindNotFound       Kind = "not-found"        // 404, or the same said over SSH
	KindServer         Kind = "server"           // 429, 5xx and other answers
	KindNotGit         Kind = "not-git"          // something that is no git server answered
	KindRefUnknown     Kind = "ref-unknown"      // no such branch, tag or commit
	KindKeyUnreadable  Kind = "key-unreadable"   // no key, not a key, wrong or missing passphrase
	KindKeyRefused     Kind = "key-refused"      // the server does not take the key
	KindHostKeyUnknown Kind = "host-key-unknown" // not in known_hosts
	KindHostKeyChanged Kind = "host-key-changed" // another one than in known_hosts
	KindPath           Kind = "path"             // repoDir is not there, or leaves the repository
	KindArchive        Kind = "archive"          // not an archive, or one that is not safe
	KindDir            Kind = "dir"              // the work directory cannot be used
	KindDiskFull       Kind = "disk-full"
	KindCancelled      Kind = "cancelled"
	KindOther          Kind = "other"
)

// Error is why a checkout failed, in words for the user. It holds no
// credential.
type Error struct {
	Kind  Kind
	Tried string // what was tried
	What  string // what happened
	Said  string // what the other side said, in its own words; may be empty
	Check string // what to check or to do next; may be empty

	cause error // only ever the end of a context
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Tried != "" {
		b.WriteString(e.Tried + ": ")
	}
	b.WriteString(e.What)
	if e.Said != "" {
		fmt.Fprintf(&b, "; the other side said: %q", e.Said)
	}
	if e.Check != "" {
		b.WriteString(". " + e.Check)
	}
	return b.String()
}

// Unwrap returns why the context ended, for a checkout that was cancelled.
func (e *Error) Unwrap() error { return e.cause }

func problem(kind Kind, what, check string) *Error {
	return &Error{Kind: kind, What: what, Check: check}
}

// httpError is an HTTP answer that is not the one asked for.
type httpError struct {
	status   int
	said     string
	bearer   bool   // the server asks for a bearer token and for nothing else
	strayed  string // the host that a redirect led to, when credentials stayed behind
	redirect string // a redirect that was not followed, and why
}

func (e *httpError) Error() string { return fmt.Sprintf("http status %d", e.status) }

// remoteError is what the git process on the other side said.
type remoteError struct {
	said   string
	inPack bool // said in answer to the request for a pack, not for the list of refs
}

func (e *remoteError) Error() string { return "remote: " + e.said }

// proxyError is a proxy that does not let a connection through.
type proxyError struct{ status int }

func (e *proxyError) Error() string { return fmt.Sprintf("proxy: http status %d", e.status) }

var (
	errStalled = errors.New("no byte arrived for too long")
	errTooLong = errors.New("the checkout took too long")
	errNotGit  = errors.New("the answer is not git's")
	errEmpty   = errors.New("the repository is empty")
)

// explain turns err into the message for the user.
func (c *checkout) explain(ctx context.Context, err error) *Error {
	var known *Error
	if !errors.As(err, &known) {
		known = c.classify(ctx, err)
	}
	e := *known
	switch {
	case errors.Is(context.Cause(ctx), errTooLong):
		e = *problem(KindTimeout, "it took longer than "+c.req.Timeout.String(), "Check the network between the job and the server, or raise source.timeout of the agent.")
	case ctx.Err() != nil:
		e = Error{Kind: KindCancelled, What: "cancelled", cause: context.Cause(ctx)}
	}
	if e.Tried == "" { // else it is about a submodule
		e.Tried = c.mask(c.tried())
	}
	e.What, e.Said, e.Check = c.mask(e.What), c.mask(oneLine(e.Said)), c.mask(e.Check)
	return &e
}

func (c *checkout) classify(ctx context.Context, err error) *Error {
	var (
		answer  *httpError
		remote  *remoteError
		command *gitError
		proxy   *proxyError
		packed  *unpack.Error
		dns     *net.DNSError
		netErr  net.Error
		unknown x509.UnknownAuthorityError
		verify  *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		host    = c.at.address()
	)
	switch {
	case errors.As(err, &answer):
		return c.explainHTTP(answer)
	case errors.As(err, &remote):
		return c.explainRemote(remote)
	case errors.As(err, &packed):
		return problem(KindArchive, "the archive cannot be used: "+packed.Reason, "Make the archive anew, or name the template's git repository.")
	case errors.Is(err, errEmpty):
		return problem(KindRefUnknown, "the repository has no commit yet", "Push a commit to it first.")
	case errors.Is(err, errNotGit):
		return problem(KindNotGit, "what answered is not a git server", "Check that the URL is the one that git clone takes, not a page of the web site or of a login.")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.As(err, &command) && command.full:
		return problem(KindDiskFull, "the disk of the job is full", "Free space under "+c.req.Dir+", or give the job more.")
	case errors.As(err, &proxy):
		return problem(KindProxy, fmt.Sprintf("the proxy does not let the connection to %s through (%d %s)", host, proxy.status, http.StatusText(proxy.status)),
			"Check HTTPS_PROXY and its user name and password, whether the proxy may reach the host, and whether NO_PROXY should name it.")
	case errors.As(err, &dns):
		return problem(KindHostUnknown, "the host name "+c.at.host+" cannot be resolved ("+dns.Err+")",
			"Check the spelling of the URL, and that the machine that runs the job can resolve it.")
	case errors.Is(err, syscall.ECONNREFUSED):
		return problem(KindRefused, "nobody listens at "+host+" (connection refused)", "Check host and port, and that no firewall is between.")
	case errors.As(err, &unknown):
		return problem(KindTLS, "the certificate of "+host+" is signed by an authority that is not trusted here",
			"Name a file with the authority's certificate in source.ca_bundle of the agent, or add it to the image's trust store.")
	case errors.As(err, &verify):
		return problem(KindTLS, "the certificate of "+host+" is not valid: "+verify.Err.Error(), "Check the host name in the URL and the server's certificate.")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return problem(KindTLS, host+" does not speak TLS", "Check whether the URL should begin with http://, and its port.")
	case errors.Is(err, errStalled), errors.Is(context.Cause(ctx), errStalled):
		return problem(KindTimeout, "no byte came from "+host+" for "+c.stall.String(), "Check the network between the job and the server, and the server's load.")
	case errors.As(err, &netErr) && netErr.Timeout():
		return problem(KindTimeout, host+" did not answer in time", "Check that the machine that runs the job may reach it, and whether a proxy (HTTPS_PROXY) is needed.")
	case isNetwork(err):
		return problem(KindNetwork, "the connection to "+host+" broke ("+cutPrefixes(err)+")", "Check the network between the job and the server.")
	}
	return problem(KindOther, err.Error(), "")
}

func (c *checkout) explainHTTP(a *httpError) *Error {
	who := "the access token or password"
	if c.cred.Password == "" {
		who = "no credentials were given:"
	}
	e := &Error{Said: a.said}
	switch {
	case a.redirect != "":
		e.Kind, e.What, e.Check = KindServer, a.redirect, "Change the repository URL to the one it has now."
	case a.strayed != "" && (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden || a.status == http.StatusNotFound):
		e.Kind, e.What = KindUnauthorized, fmt.Sprintf("the server redirects to %s, where credentials for %s are not sent, and it wants some (%d)", a.strayed, c.at.host, a.status)
		e.Check = "Change the repository URL to the one it has now."
	case a.status == http.StatusUnauthorized && c.cred.Password == "":
		e.Kind, e.What = KindUnauthorized, "the server wants credentials and none were given (401)"
		e.Check = "Set gitAuth to an access token, or user name and password. Some hosts answer this way for a repository that does not exist: check the URL, too."
	case a.status == http.StatusUnauthorized:
		e.Kind, e.What = KindUnauthorized, "the server refused the credentials (401)"
		e.Check = "Check that the token or password is right, has not expired, and belongs to " + c.at.host + "."
	case a.status == http.StatusForbidden:
		e.Kind, e.What = KindForbidden, "the server knows these credentials and does not let them read the repository (403)"
		e.Check = "Check that " + who + " may read this repository (scope, single sign-on, address rules)."
		if c.cred.Password == "" {
			e.What, e.Check = "the server does not let anyone read the repository without credentials (403)", "Set gitAuth."
		}
	case a.status == http.StatusProxyAuthRequired:
		e.Kind, e.What = KindProxy, "the proxy wants other credentials (407)"
		e.Check = "Check HTTP_PROXY and its user name and password, and whether NO_PROXY should name the host."
	case a.status == http.StatusNotFound:
		e.Kind, e.What = KindNotFound, "the server knows no such repository (404)"
		if c.req.Archive {
			e.What = "the server knows no such archive (404)"
		}
		e.Check = "Check the URL. Hosts answer the same when " + who + " may not see the repository, so check that, too."
		if c.cred.Password == "" {
			e.Check = "Check the URL. Hosts answer the same for a private repository when no credentials are given: then set gitAuth."
		}
	default:
		e.Kind, e.What = KindServer, fmt.Sprintf("the server answered %d %s", a.status, http.StatusText(a.status))
		e.Check = "Try again later, or ask who runs " + c.at.host + "."
	}
	return e
}

func (c *checkout) explainRemote(r *remoteError) *Error {
	e := &Error{Said: r.said}
	switch {
	case !r.inPack:
		e.Kind, e.What = KindNotFound, "the server does not give out this repository"
		e.Check = "Check the path in the URL, and that the credentials may read this repository."
	case c.req.Commit != "":
		e.Kind, e.What = KindRefUnknown, "the repository has no commit "+c.req.Commit
		e.Check = "Check the hash, and that the commit was pushed and its branch not deleted or rewritten."
	default:
		e.Kind, e.What = KindServer, "the server did not send the commit"
		e.Check = "Try again; if it stays so, check the repository with git fsck on the server."
	}
	return e
}

// retryable reports whether err is a fault of the network or a passing trouble
// of the server, so that trying again may help.
func retryable(err error) bool {
	var (
		answer *httpError
		dns    *net.DNSError
		netErr net.Error
		proxy  *proxyError
		e      *Error
	)
	switch {
	case errors.As(err, &e):
		return false
	case errors.As(err, &answer):
		return answer.status == http.StatusTooManyRequests || answer.status >= 500
	case errors.As(err, &proxy):
		return proxy.status >= 500
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.Is(err, errStalled), errors.As(err, &netErr) && netErr.Timeout():
		return true
	}
	return isNetwork(err)
}

func isNetwork(err error) bool {
	var op *net.OpError
	for _, target := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, io.ErrUnexpectedEOF, io.EOF, net.ErrClosed,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	// A certificate that is refused reaches us as an OpError of the peer, too.
	var alert tls.AlertError
	return errors.As(err, &op) && !errors.As(err, &alert)
}

// cutPrefixes returns the innermost text of err: what happened, without the
// layers that it went through.
func cutPrefixes(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// oneLine makes a text of the other side fit into a message.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	const most = 500
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}
