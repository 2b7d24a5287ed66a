package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// callTimeout bounds one call: the agent answers from memory.
const callTimeout = 5 * time.Second

// Client talks to the agent that works in one directory.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client for the agent that works in directory.
func NewClient(directory string) *Client {
	path := SocketPath(directory)
	return &Client{path: path, http: &http.Client{
		Timeout: callTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Status returns what the agent is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return c.call(ctx, http.MethodGet, "/status")
}

// Drain makes the agent drain. The status that it returns may be that of the
// moment before.
func (c *Client) Drain(ctx context.Context) (Status, error) {
	return c.call(ctx, http.MethodPost, "/drain")
}

// Cancel makes the agent cancel its jobs and end.
func (c *Client) Cancel(ctx context.Context) (Status, error) {
	return c.call(ctx, http.MethodPost, "/cancel")
}

func (c *Client) call(ctx context.Context, method, path string) (Status, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, nil)
	if err != nil {
		return Status{}, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return Status{}, c.explain(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return Status{}, c.explain(err)
	}
	var status Status
	if res.StatusCode != http.StatusOK || json.Unmarshal(body, &status) != nil {
		return Status{}, fmt.Errorf("what answers on %s is no agent of this version (%s)", c.path, res.Status)
	}
	return status, nil
}

// explain says what an error of the connection means for an operator.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.EINVAL),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF):
		return fmt.Errorf("%w: nobody answers on %s: name the agent's directory with --working-directory", ErrNoAgent, c.path)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("this user may not open %s: call it as the user that the agent runs as, or as root", c.path)
	}
	return fmt.Errorf("admin socket %s: %w", c.path, err)
}
