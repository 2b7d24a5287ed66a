package server

import (
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/longshore-run/longshore/internal/control"
)

// PollDeployments answers GET /api/deployments/poll.
func (s *Server) PollDeployments(w http.ResponseWriter, r *http.Request) {
	if s.noWork.Err() != nil {
		s.comeBack(w)
		return
	}
	ctx, wait, done := s.hold(w, r, s.noWork)
	defer done()
	s.polls.Add(1)
	defer s.polls.Add(-1)
	work, err := s.service.Poll(ctx, from(r).Principal, agentInfo(r), wait) //nolint:contextcheck // the server's own end matters, too
	switch {
	case err != nil && s.noWork.Err() != nil && r.Context().Err() == nil:
		s.comeBack(w)
	case err != nil:
		s.writeError(w, r, err)
	case work == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		s.writeJSON(w, r, http.StatusOK, work)
	}
}

// returnRate is how many agents a second are to come back to the next server:
// three times what as many agents ask for anyway when they hold a poll a minute
// each, for a thousand of them.
const returnRate = 50

// sendAway notes that agents are to be sent away from now on, and over how many
// seconds they are to come back.
func (s *Server) sendAway() { s.spread.CompareAndSwap(0, s.polls.Load()/returnRate) }

// comeBack sends an agent away until this server is gone and the next one is
// there. Few agents come back after a second; many are spread, so that they do
// not fall on the next server all at once.
func (s *Server) comeBack(w http.ResponseWriter) {
	seconds := 1 + rand.Int64N(s.spread.Load()+1) //nolint:gosec // spreads load, guards nothing
	w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	w.WriteHeader(http.StatusNoContent)
}

// GetRunnerStatus answers GET /api/deployments/{deploymentID}/status.
func (s *Server) GetRunnerStatus(w http.ResponseWriter, r *http.Request, deploymentID string) {
	ctx, wait, done := s.hold(w, r, s.draining)
	defer done()
	status, err := s.service.RunnerStatus(ctx, from(r).Principal, deploymentID, wait) //nolint:contextcheck // the server's own end matters, too
	if err != nil && s.draining.Err() != nil && r.Context().Err() == nil {
		status, err = s.service.RunnerStatus(r.Context(), from(r).Principal, deploymentID, 0)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, status)
}

// DownloadExecutor answers GET /api/deployments/executor.
func (s *Server) DownloadExecutor(w http.ResponseWriter, r *http.Request, params DownloadExecutorParams) {
	archive, err := s.executors.archive(r.Context(), params.Arch)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	extendAnswer(w, downloadTimeout)
	archive.serve(w, r)
}

// agentInfo returns what an agent says of itself. Ours sends the User-Agent
// "longshore-agent/VERSION (OS/ARCH; HOST; PID)"; of others as much is taken as
// looks the same. It is for people to read and decides nothing.
func agentInfo(r *http.Request) control.AgentInfo {
	var info control.AgentInfo
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		info.IP = host
	}
	product, rest, _ := strings.Cut(clip(r.UserAgent()), " ")
	if _, version, ok := strings.Cut(product, "/"); ok {
		info.Version = version
	}
	comment, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(rest), "("), ")")
	if !ok {
		return info
	}
	for i, field := range strings.Split(comment, ";") {
		field = strings.TrimSpace(field)
		switch i {
		case 0:
			info.Platform = field
		case 1:
			info.Hostname = field
		case 2:
			info.Pid = field
		}
	}
	return info
}

// clip bounds what is kept of a User-Agent.
func clip(s string) string { return s[:min(len(s), 512)] }
