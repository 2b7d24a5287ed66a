package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/control"
)

// readyTimeout is how long a part may think about whether it is ready.
const readyTimeout = 2 * time.Second

// healthz says that the process lives. When it does not answer, restart it.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	s.writeJSON(w, r, http.StatusOK, struct {
		Status      string    `json:"status"`
		CurrentTime time.Time `json:"currentTime"`
	}{"healthy", time.Now().UTC()})
}

// readyz says whether requests should be sent here.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	answer := struct {
		Status  string   `json:"status"`
		Reasons []string `json:"reasons"`
	}{"ready", []string{}}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	var unavailable *control.UnavailableError
	switch err := s.ready(ctx); {
	case s.draining.Err() != nil:
		answer.Reasons = append(answer.Reasons, errDraining.Error())
	case errors.As(err, &unavailable):
		s.unavailable(r, err)
		answer.Reasons = append(answer.Reasons, "the database cannot be used: "+unavailable.Reason)
	case err != nil:
		// The cause may hold paths, and this route asks for no token.
		s.log.Warn("not ready", zap.Error(err))
		answer.Reasons = append(answer.Reasons, "the database does not answer: see the log of the server")
	}
	code := http.StatusOK
	if len(answer.Reasons) > 0 {
		answer.Status, code = "not ready", http.StatusServiceUnavailable
	}
	s.writeJSON(w, r, code, answer)
}
