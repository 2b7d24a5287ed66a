package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/lifecycle"
)

// serve runs the control plane until it is stopped.
func serve(ctx context.Context, s settings, stdout, stderr io.Writer) error {
	ctx, stops := lifecycle.Listen(ctx, nil, os.Interrupt, syscall.SIGTERM)
	defer stops.Done()
	p, err := open(ctx, s, stdout, stderr)
	if err != nil {
		return err
	}
	defer p.close()
	fmt.Fprintf(stdout, "listening on %s\n", p.localURL())
	p.log.Info("server started",
		zap.String("version", version), zap.String("listen", p.listener.Addr().String()), zap.String("public_url", p.publicURL),
		zap.String("organization", p.organization), zap.String("data_dir", p.dataDir))
	began := time.Now()
	err = p.server.Serve(ctx, p.listener, stops.Draining(), p.stopFor)
	p.log.Info("server ended", zap.Duration("after", time.Since(began)), zap.Error(err))
	if err != nil {
		return &failure{err}
	}
	return stopped(ctx)
}

// stopped returns the error of a program that was stopped by something else than
// a person.
func stopped(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, lifecycle.ErrCancelled) {
		return &failure{fmt.Errorf("stopped: %w", cause)}
	}
	return nil
}
