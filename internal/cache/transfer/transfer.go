// Package transfer moves one object from and to a presigned URL of a bucket: in
// parallel ranges where the server can, resumed where it stopped, given up when
// nothing moves. It knows nothing of what is in the object. The main functions
// are Get and Put.
//
// A URL is a secret: it is in no error. When one has expired in the middle, a new
// one is asked for.
package transfer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Options say how to move objects. All of them are required.
type Options struct {
	HTTP     *http.Client
	Segment  int64         // bytes of one range
	Parallel int           // ranges at a time
	Stall    time.Duration // without a byte, after which a request is given up
	Retry    time.Duration // before the first repeat, growing from there
	Retries  int           // after a request that brought nothing forward
	MaxSize  int64         // of an object
}

// URL returns a URL of the object that lives now. It is called again when the
// server refuses one that it took before.
type URL func(ctx context.Context) (string, error)

// The errors of Get and Put, beside those of the network. StatusError is another.
var (
	ErrNone     = errors.New("there is no such object")
	ErrReplaced = errors.New("the object was replaced meanwhile")
	ErrTooLarge = errors.New("the object is larger than allowed")
	errStalled  = errors.New("nothing moved")
)

// StatusError is an answer that is no success.
type StatusError struct {
	Status int
	Code   string // S3's, GCS's or Azure's name for it; may be empty
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("the storage answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	return text
}

// NewTransport returns a transport that trusts the certificates of ca (PEM)
// beside those of the system. Proxies come from the environment.
func NewTransport(ca []byte) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConnsPerHost:    8,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // ranges are of the bytes as they are stored
		WriteBufferSize:        64 << 10,
		ReadBufferSize:         64 << 10,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if len(ca) == 0 {
		return t, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the additional certificates hold none in PEM form")
	}
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return t, nil
}

// refused reports whether a server did not take the URL: it has expired, or was
// never good.
func refused(status int) bool {
	return status == http.StatusForbidden || status == http.StatusUnauthorized || status == http.StatusBadRequest
}

// errorCode finds the name of what is wrong in the answer of a bucket, and
// nothing else of it: the rest may quote the request.
var errorCode = regexp.MustCompile(`<Code>([A-Za-z0-9]{1,64})</Code>`)

// statusError reads the answer that is no success, and closes it.
func statusError(res *http.Response) error {
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // what came will do
	e := &StatusError{Status: res.StatusCode}
	if code := errorCode.FindSubmatch(body); code != nil {
		e.Code = string(code[1])
	}
	return e
}

// plain takes the URL out of an error of net/http, and says it when nothing moved.
func (o Options) plain(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("%w for %s", errStalled, o.Stall)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal is an error of a URL function, which has tried again by itself.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// final reports whether another try cannot help.
func final(err error) bool {
	var (
		status  *StatusError
		refusal *refusal
	)
	switch {
	case errors.As(err, &refusal), errors.Is(err, ErrNone), errors.Is(err, ErrReplaced), errors.Is(err, ErrTooLarge):
		return true
	case errors.As(err, &status):
		return status.Status < 500 && !refused(status.Status) &&
			status.Status != http.StatusRequestTimeout && status.Status != http.StatusTooManyRequests
	}
	return false
}

// persist calls try until it succeeds, fails for good, or failed too often with
// nothing brought forward. Try says whether it brought something forward.
func (o Options) persist(ctx context.Context, try func(ctx context.Context) (moved bool, err error)) error {
	waits := backoff.NewExponentialBackOff(backoff.WithInitialInterval(o.Retry), backoff.WithMaxInterval(10*time.Second), backoff.WithMaxElapsedTime(0))
	for failures := 0; ; {
		moved, err := try(ctx)
		if err == nil || final(err) || ctx.Err() != nil {
			return err
		}
		if moved {
			failures = 0
			waits.Reset()
		}
		if failures++; failures > o.Retries {
			return err
		}
		timer := time.NewTimer(waits.NextBackOff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
