package gitsrc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/longshore-run/longshore/internal/stall"
)

const (
	infoRefs = "/info/refs"
	// agent begins as git's own does: some hosts tell git from a browser by it.
	agent = "git/2.0 (longshore)"
	// version2Wanted asks for version 2 of git's protocol. A server that does
	// not know it answers in the first.
	version2Wanted = "version=2"
)

// httpLine is git's smart protocol over HTTP: a request for each message.
type httpLine struct {
	client *http.Client
	base   string // the repository's URL, after redirects of the first request
	touch  func()
	auth   *authTransport
}

// openHTTP connects to nothing yet.
func (c *checkout) openHTTP(touch func()) line {
	origin := &url.URL{Scheme: c.at.scheme, Host: c.at.host}
	if strings.Contains(c.at.host, ":") {
		origin.Host = "[" + c.at.host + "]"
	}
	if c.at.port != "" {
		origin.Host = net.JoinHostPort(c.at.host, c.at.port)
	}
	auth := &authTransport{next: c.transport, origin: origin, cred: c.cred, bearer: c.bearer}
	return &httpLine{
		client: &http.Client{Transport: auth, CheckRedirect: checkRedirect},
		base:   strings.TrimRight(c.at.String(), "/"),
		touch:  touch, auth: auth,
	}
}

func (s *httpLine) hello(ctx context.Context) (io.ReadCloser, error) {
	target := s.base + infoRefs + "?service=git-upload-pack"
	if before, query, ok := strings.Cut(s.base, "?"); ok {
		target = before + infoRefs + "?" + query + "&service=git-upload-pack"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, errors.New("the repository URL cannot be requested")
	}
	res, err := s.do(req, "application/x-git-upload-pack-advertisement")
	if err != nil {
		return nil, err
	}
	// Where a redirect led is where the repository is.
	final := *res.Request.URL
	if !strings.HasSuffix(final.EscapedPath(), infoRefs) {
		res.Body.Close()
		return nil, errNotGit
	}
	final.RawPath = strings.TrimSuffix(final.EscapedPath(), infoRefs)
	final.Path = strings.TrimSuffix(final.Path, infoRefs)
	query := final.Query()
	query.Del("service")
	final.RawQuery = query.Encode()
	s.base = final.String()
	return res.Body, nil
}

func (s *httpLine) ask(ctx context.Context, message []byte) (io.ReadCloser, error) {
	target := s.base + "/git-upload-pack"
	if before, query, ok := strings.Cut(s.base, "?"); ok {
		target = before + "/git-upload-pack?" + query
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	res, err := s.do(req, "application/x-git-upload-pack-result")
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

func (s *httpLine) lastWords() string { return "" }

func (s *httpLine) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// do sends req and makes sure that the answer is of the type wanted.
func (s *httpLine) do(req *http.Request, want string) (*http.Response, error) {
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Accept", want)
	req.Header.Set("Git-Protocol", version2Wanted)
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	s.touch()
	res.Body = stall.ReadCloser(res.Body, s.touch)
	if res.StatusCode == http.StatusOK {
		if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != want {
			res.Body.Close()
			return nil, fmt.Errorf("%w: it is of type %q", errNotGit, kind)
		}
		return res, nil
	}
	defer res.Body.Close()
	return nil, s.refusal(res)
}

// refusal reads an answer that is not the one asked for.
func (s *httpLine) refusal(res *http.Response) error {
	e := &httpError{status: res.StatusCode}
	if s.auth.cred.Password != "" && !s.auth.mayHave(res.Request.URL) {
		e.strayed = res.Request.URL.Host
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == "text/plain" {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 2000))
		e.said = string(said)
	}
	e.bearer = onlyBearer(res.Header.Values("WWW-Authenticate"))
	return e
}

func onlyBearer(challenges []string) bool {
	bearer := false
	for _, challenge := range challenges {
		scheme, _, _ := strings.Cut(challenge, " ")
		switch strings.ToLower(scheme) {
		case "basic":
			return false
		case "bearer":
			bearer = true
		}
	}
	return bearer
}

// checkRedirect follows redirects of the first request only, as git does, and
// never from https to http.
func checkRedirect(req *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	to := req.URL.Scheme + "://" + req.URL.Host
	switch {
	case req.URL.Scheme != "https" && last.URL.Scheme == "https":
		return &httpError{redirect: "the server redirects from https to " + to + ", which would not be encrypted"}
	case req.Method != http.MethodGet || via[0].Method != http.MethodGet:
		return &httpError{redirect: "the server redirects to " + to + " in the middle of the conversation"}
	case len(via) >= 5:
		return &httpError{redirect: "the server redirects round and round, last to " + to}
	}
	return nil
}

// authTransport adds the credentials to the requests that go to the place they
// are for. It does so below the redirects, so that no redirect can carry them
// elsewhere: they are in no header that net/http could copy.
type authTransport struct {
	next   http.RoundTripper
	origin *url.URL
	cred   Auth
	bearer bool
}

func (t *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.cred.Password == "" && t.cred.Username == "" || !t.mayHave(req.URL) {
		return t.next.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	if t.bearer {
		req.Header.Set("Authorization", "Bearer "+t.cred.Token)
	} else {
		req.SetBasicAuth(t.cred.Username, t.cred.Password)
	}
	return t.next.RoundTrip(req)
}

func (t *authTransport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// mayHave reports whether credentials for the origin may go to u: the same
// scheme, host and port, or the same host's https in place of its http.
func (t *authTransport) mayHave(u *url.URL) bool {
	if u.Scheme == t.origin.Scheme && strings.EqualFold(u.Host, t.origin.Host) {
		return true
	}
	return t.origin.Scheme == "http" && u.Scheme == "https" && u.Port() == "" && t.origin.Port() == "" &&
		strings.EqualFold(u.Hostname(), t.origin.Hostname())
}

// newTransport returns a transport of the checkout's own, so that closing its
// connections disturbs nobody. Certificates of ca are trusted beside those of
// the system; HTTP_PROXY, HTTPS_PROXY and NO_PROXY are heeded.
func newTransport(ca []byte) (*http.Transport, error) {
	proxy := httpproxy.FromEnvironment().ProxyFunc()
	t := &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2,
		IdleConnTimeout:        10 * time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
			if res.StatusCode != http.StatusOK {
				return &proxyError{status: res.StatusCode}
			}
			return nil
		},
	}
	if len(ca) == 0 {
		return t, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(ca) {
		return nil, problem(KindRequest, "the additional certificates hold none", "Check source.ca_bundle of the agent: it names a file with certificates in PEM form.")
	}
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return t, nil
}
