package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// endTimeout bounds how long the end of a Server waits for callers.
const endTimeout = 2 * time.Second

// Server answers on the socket of one agent:
//
//	GET  /status  what the agent is doing
//	POST /drain   claim no more, end when the jobs in hand have; answers as status does
//	POST /cancel  end the jobs in hand, too; answers as status does
type Server struct {
	listener net.Listener
	agent    Agent
}

// Listen opens the socket of the agent that works in directory, which must be
// there. A socket that an agent left behind is replaced; one on which an agent
// answers is not (ErrTaken).
func Listen(ctx context.Context, directory string, agent Agent) (*Server, error) {
	path := SocketPath(directory)
	if status, err := NewClient(directory).Status(ctx); err == nil {
		return nil, fmt.Errorf("%w: process %d answers on %s: stop it, or give this agent a --working-directory of its own", ErrTaken, status.PID, path)
	} else if !errors.Is(err, ErrNoAgent) {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("admin socket: %s is in the way and is no socket: move it elsewhere", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	// The working directory lets nobody else in, so nobody gets ahead of chmod.
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EINVAL) {
		return nil, fmt.Errorf("admin socket %s: %w: choose a shorter --working-directory", path, ErrTooLong)
	}
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return &Server{listener: listener, agent: agent}, nil
}

// Serve answers until ctx ends, then closes and removes the socket.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		// Who has just called gets an answer.
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		if server.Shutdown(limit) != nil {
			_ = server.Close()
		}
	})
	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("admin socket: %w", err)
	}
	<-ended
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { s.answer(w) })
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
		s.agent.Drain()
		s.answer(w)
	})
	mux.HandleFunc("POST /cancel", func(w http.ResponseWriter, _ *http.Request) {
		s.agent.Cancel()
		s.answer(w)
	})
	return mux
}

func (s *Server) answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.agent.Status())
}
