package notice

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Limits of one request: the service is a hop away and its answers are short.
const (
	requestTimeout = 5 * time.Second
	maxAnswer      = 1 << 20
)

// metadata makes requests to a metadata service.
type metadata struct {
	base string
	http *http.Client
}

func newMetadata(base string) *metadata {
	return &metadata{base: base, http: &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{ // without a proxy: the address is this machine's own
			DialContext:     (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (m *metadata) close() { m.http.CloseIdleConnections() }

// answer is what the service says.
type answer struct {
	status int
	header http.Header
	text   string // without the white space around it
}

// unexpected makes an error of an answer that says nothing we know.
func (a answer) unexpected(path string) error {
	return fmt.Errorf("metadata %s: unexpected answer %d", path, a.status)
}

// ask makes one request with one header.
func (m *metadata) ask(ctx context.Context, method, path, header, value string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.base+path, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set(header, value)
	res, err := m.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return answer{}, fmt.Errorf("metadata %s: %w", path, err)
	}
	return answer{res.StatusCode, res.Header, strings.TrimSpace(string(body))}, nil
}
