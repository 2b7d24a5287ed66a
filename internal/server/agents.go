package server

import (
	"net"
	"net/http"
	"strings"

	"github.com/longshore-run/longshore/internal/control"
)

// PollDeployments answers GET /api/deployments/poll.
func (s *Server) PollDeployments(w http.ResponseWriter, r *http.Request) {
	if s.noWork.Err() != nil {
		comeBack(w)
		return
	}
	ctx, wait, done := s.hold(w, r, s.noWork)
	defer done()
	work, err := s.service.Poll(ctx, from(r).Principal, agentInfo(r), wait) //nolint:contextcheck // the server's own end matters, too
	switch {
	case err != nil && s.noWork.Err() != nil && r.Context().Err() == nil:
		comeBack(w)
	case err != nil:
		s.writeError(w, r, err)
	case work == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		s.writeJSON(w, r, http.StatusOK, work)
	}
}

// comeBack sends an agent away until this server is gone and the next one is there.
func comeBack(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
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
