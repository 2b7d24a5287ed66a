package client

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Options configure a Client. Only BaseURL is required.
type Options struct {
	BaseURL   string       // of the service, http or https; a trailing slash or /api is dropped
	UserAgent string       // default "longshore"
	HTTP      *http.Client // default: one with NewTransport; its CheckRedirect and Timeout are not used

	Holder string // id by which the caller takes jobs up; see api.HeaderHolder

	RequestTimeout time.Duration // of one request, a held call's wait comes on top; default 30s
	Retries        int           // of calls that are safe to repeat, after the first try; 0 means 2, below 0 means until the context ends
	RetryWait      time.Duration // before the first repeat, growing from there; default 20s
	RetryMaxWait   time.Duration // default 2m

	Breaker  Breaker     // of the calls with a pool token
	Observer Observer    // told of every request; optional
	Log      *zap.Logger // default: nothing is logged
}

// Observer is told how each request ended. Call and outcome have few values:
// they are fit to be labels of a metric. It is called by several goroutines.
type Observer interface {
	Request(call, outcome string, took time.Duration)
}

// The outcomes that an Observer is told.
const (
	OutcomeOK          = "ok"
	OutcomeRefused     = "refused"     // 401, 403
	OutcomeRejected    = "rejected"    // another 4xx
	OutcomeThrottled   = "throttled"   // 429
	OutcomeUnavailable = "unavailable" // 5xx
	OutcomeGarbled     = "garbled"     // a reply that is not the service's
	OutcomeTimeout     = "timeout"     // no reply in time
	OutcomeUnreachable = "unreachable" // no connection, or one that broke
	OutcomeCancelled   = "cancelled"   // the caller gave up
	OutcomeNotTried    = "not-tried"   // the circuit breaker is open, or there is no usable token
)

// Client makes requests to one service. It is safe for concurrent use.
type Client struct {
	o    Options
	base string // without a slash at the end
	http *http.Client
}

// New returns a Client, or an error that says what is wrong with o.BaseURL.
func New(o Options) (*Client, error) {
	base, err := parseBase(o.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("service url: %w", err)
	}
	if o.UserAgent == "" {
		o.UserAgent = "longshore"
	}
	setDuration(&o.RequestTimeout, 30*time.Second)
	setDuration(&o.RetryWait, 20*time.Second)
	setDuration(&o.RetryMaxWait, 2*time.Minute)
	setDuration(&o.Breaker.Open, 10*time.Minute)
	if o.Retries == 0 {
		o.Retries = 2
	}
	if o.Breaker.Failures == 0 {
		o.Breaker.Failures = 2
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	var hc http.Client
	if o.HTTP != nil {
		hc = *o.HTTP
	} else {
		hc.Transport = NewTransport()
	}
	hc.Timeout = 0 // every request has its own limit
	hc.CheckRedirect = checkRedirect
	return &Client{o: o, base: base, http: &hc}, nil
}

func setDuration(d *time.Duration, to time.Duration) {
	if *d <= 0 {
		*d = to
	}
}

// BaseURL returns the base URL of the service, without /api.
func (c *Client) BaseURL() string { return c.base }

// CloseIdle closes the connections that are not in use.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// NewTransport returns a transport with limits for everything but the wait for a
// reply, which depends on the call. Proxies come from the environment.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConns:          32,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
		HTTP2: &http.HTTP2Config{ // a connection that a blackhole swallowed is found out
			SendPingTimeout: 15 * time.Second,
			PingTimeout:     10 * time.Second,
		},
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// parseBase checks a base URL. Its errors never quote a password.
func parseBase(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", errors.New("missing, want something like https://api.example.com")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New("not a URL, want something like https://api.example.com")
	case u.User != nil:
		return "", errors.New("it holds a user name or password: remove them, the token is an option of its own")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("%q has no http:// or https:// in front", text)
	case u.Hostname() == "":
		return "", fmt.Errorf("%q names no host", text)
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q has something after the path: remove everything from ? or # on", text)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.Path = strings.TrimRight(strings.TrimSuffix(u.Path, "/api"), "/")
	u.RawPath = ""
	return u.String(), nil
}

// checkRedirect follows a redirect only where that cannot do harm: a call that
// sends something is never sent elsewhere, and another host never sees a token.
func checkRedirect(next *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) >= 5 || next.Method != first.Method {
		return http.ErrUseLastResponse
	}
	if sameHost(first.URL, next.URL) {
		return nil
	}
	if first.Method != http.MethodGet {
		return http.ErrUseLastResponse
	}
	next.Header.Del("Authorization")
	return nil
}

// sameHost reports whether b is the host of a, reached no less safely.
func sameHost(a, b *url.URL) bool {
	if a.Scheme == b.Scheme {
		return strings.EqualFold(a.Host, b.Host)
	}
	return a.Scheme == "http" && b.Scheme == "https" && strings.EqualFold(a.Hostname(), b.Hostname())
}
