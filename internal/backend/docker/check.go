package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/client"
)

// checkTimeout is short: an engine that is well answers a ping at once.
const checkTimeout = 5 * time.Second

const (
	awaitTimeout = time.Minute // longer than an engine takes to restart
	awaitPause   = 500 * time.Millisecond
)

// Check reports whether the engine answers and runs Linux containers.
func (b *Backend) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	pong, err := b.client.Ping(ctx)
	if err != nil {
		return b.explain(ctx, err)
	}
	if pong.OSType != "" && pong.OSType != "linux" {
		return fmt.Errorf("the Docker engine at %s runs %s containers: jobs need linux ones", b.client.DaemonHost(), pong.OSType)
	}
	return nil
}

// await waits for an engine that went away between the check before the claim
// and the start of the job, as one that restarts does, and reports whether it is
// back.
func (b *Backend) await(ctx context.Context, setup io.Writer, why error) bool {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	fmt.Fprintf(setup, "waiting for the Docker engine for at most %s: %v\n", awaitTimeout, why)
	for b.Check(ctx) != nil {
		if sleep(ctx, awaitPause) != nil {
			return false
		}
	}
	return true
}

// explain replaces the client's errors about its connection by what an operator
// can do about them, and the error of a canceled call by the cause.
func (b *Backend) explain(ctx context.Context, err error) error {
	host := b.client.DaemonHost()
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the Docker engine at %s accepts calls and does not answer them: look at its log, for example with \"journalctl -u docker\": %w", host, err)
	}
	if !client.IsErrConnectionFailed(err) {
		return err
	}
	path, isSocket := strings.CutPrefix(host, "unix://")
	if !isSocket {
		return fmt.Errorf("cannot reach the Docker engine at %s: is it running, and is the address right? (%w)", host, err)
	}
	switch dialErr := dialSocket(ctx, path); {
	case errors.Is(dialErr, syscall.ENOENT):
		return fmt.Errorf("no Docker engine at %s, the socket does not exist: start the engine, or set the agent's docker host", host)
	case errors.Is(dialErr, syscall.EACCES):
		return fmt.Errorf("this user may not use the Docker socket %s: add it to the group that owns the socket, usually \"docker\"", path)
	case errors.Is(dialErr, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody answers on the Docker socket %s: start the engine, for example with \"systemctl start docker\"", path)
	}
	return fmt.Errorf("cannot reach the Docker engine at %s: is it running? (%w)", host, err)
}

// dialSocket finds out why a socket cannot be reached; the client's errors do
// not keep that.
func dialSocket(ctx context.Context, path string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	return conn.Close()
}
