package gitsrc_test

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// certificate returns the certificate that a test server presents, as PEM.
func certificate(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func serveTLS(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestCA: an authority of one's own is trusted beside those of the system.
func TestCA(t *testing.T) { eachEngine(t, testCA) }

func testCA(t *testing.T, on engine) {
	o := newOrigin(t)
	server := serveTLS(t, basic("x-access-token", secret, o.backend()))
	request := gitsrc.Request{URL: server.URL + "/repo.git", Branch: "main", Auth: gitsrc.Auth{Token: secret}}
	_, _, err := on.checkout(t, request)
	wantKind(t, err, gitsrc.KindTLS, "authority that is not trusted", "source.ca_bundle")
	request.CA = certificate(server)
	if got, _, err := on.checkout(t, request); err != nil || got.Commit != o.main {
		t.Errorf("Checkout() = %+v, %v", got, err)
	}
	request.CA = []byte("not a certificate")
	_, _, err = on.checkout(t, request)
	wantKind(t, err, gitsrc.KindRequest, "hold none")
}

// tunnel is an HTTP proxy: it lets connections through to one address, whatever
// host they are for, and answers other requests with h.
func tunnel(t *testing.T, address string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			h.ServeHTTP(w, r)
			return
		}
		to, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		defer to.Close()
		from, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer from.Close()
		io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		var both sync.WaitGroup
		both.Go(func() { io.Copy(to, from); to.Close() })
		both.Go(func() { io.Copy(from, to); from.Close() })
		both.Wait()
	})
}

// TestProxy: the proxies of the environment are used. Not parallel: it sets
// variables.
func TestProxy(t *testing.T) {
	o := newOrigin(t)
	server := serveTLS(t, o.backend())
	open := serve(t, tunnel(t, server.Listener.Addr().String(), o.backend()))
	locked := serve(t, status(http.StatusProxyAuthRequired, "who are you?"))
	for name, tc := range map[string]struct {
		proxy, url string
		kind       gitsrc.Kind
		text       string
	}{
		"for http":             {proxy: open, url: "http://git.invalid/repo.git"},
		"for https":            {proxy: open, url: "https://example.com/repo.git"},
		"refuses http":         {proxy: locked, url: "http://git.invalid/repo.git", kind: gitsrc.KindProxy, text: "wants other credentials (407)"},
		"refuses https":        {proxy: locked, url: "https://example.com/repo.git", kind: gitsrc.KindProxy, text: "example.com:443 through (407 Proxy Authentication Required)"},
		"is not asked by name": {proxy: open, url: "http://direct.invalid/repo.git", kind: gitsrc.KindHostUnknown, text: "direct.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HTTP_PROXY", tc.proxy)
			t.Setenv("HTTPS_PROXY", tc.proxy)
			t.Setenv("NO_PROXY", "direct.invalid")
			got, _, err := engine{}.checkout(t, gitsrc.Request{URL: tc.url, Branch: "main", CA: certificate(server)})
			if tc.kind != "" {
				wantKind(t, err, tc.kind, tc.text)
			} else if err != nil || got.Commit != o.main {
				t.Errorf("Checkout() = %+v, %v", got, err)
			}
		})
	}
}

// TestTooLong: a checkout ends, although bytes keep coming.
func TestTooLong(t *testing.T) { eachEngine(t, testTooLong) }

func testTooLong(t *testing.T, on engine) {
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		io.WriteString(w, "001e# service=git-upload-pack\n0000000eversion 2\n")
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for r.Context().Err() == nil {
			io.WriteString(w, "0010capability=x")
			w.(http.Flusher).Flush()
			<-tick.C
		}
	}))
	dir := filepath.Join(t.TempDir(), "src")
	_, _, err := on.checkout(t, gitsrc.Request{URL: url + "/x", Dir: dir, Timeout: 200 * time.Millisecond})
	wantKind(t, err, gitsrc.KindTimeout, "longer than 200ms", "source.timeout")
}
