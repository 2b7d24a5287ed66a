package server

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Limits of a connection. There is no limit on a whole request: a held poll
// would run into it. Bodies and answers have deadlines of their own.
const (
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	maxHead     = 64 << 10
)

// Serve answers requests on listener until drain is closed or ctx ends, and
// closes the listener. After drain no connection is accepted, held calls are
// answered at once and the others have grace to finish; when ctx ends, or grace
// is over, they are cut. It returns nil after both.
func (s *Server) Serve(ctx context.Context, listener net.Listener, drain <-chan struct{}, grace time.Duration) error {
	requests, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	hs := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          quiet(s.log),
	}
	hs.RegisterOnShutdown(s.Drain) // runs once nothing new is accepted
	served := make(chan error, 1)
	go func() { served <- hs.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("accept connections: %w", err)
	case <-ctx.Done():
	case <-drain:
	}
	defer s.handlers.Wait()
	end, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := hs.Shutdown(end); err != nil {
		s.log.Warn("requests were cut short", zap.Error(err))
		cut(errDraining)
		if err := hs.Close(); err != nil {
			s.log.Debug("connections not closed", zap.Error(err))
		}
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("accept connections: %w", err)
	}
	return nil
}

// quiet returns what net/http reports to: broken connections, which are worth a
// line only when someone looks for it.
func quiet(l *zap.Logger) *log.Logger {
	std, err := zap.NewStdLogAt(l, zap.DebugLevel)
	if err != nil { // no such level: cannot happen
		return zap.NewStdLog(l)
	}
	return std
}
