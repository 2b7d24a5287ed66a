package server

import (
	"net/http"

	"github.com/longshore-run/longshore/internal/api"
)

// ListAgentPools answers GET /api/orgs/{org}/agent-pools.
func (s *Server) ListAgentPools(w http.ResponseWriter, r *http.Request, org string) {
	pools, err := s.service.Pools(r.Context(), org)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if pools.AgentPools == nil {
		pools.AgentPools = []api.AgentPool{}
	}
	s.writeJSON(w, r, http.StatusOK, pools)
}

// CreateAgentPool answers POST /api/orgs/{org}/agent-pools.
func (s *Server) CreateAgentPool(w http.ResponseWriter, r *http.Request, org string) {
	var req api.CreateOrgAgentPoolRequest
	if err := s.decode(w, r, &req); err != nil {
		s.writeError(w, r, err)
		return
	}
	created, err := s.service.CreatePool(r.Context(), org, req)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, created)
}

// GetAgentPool answers GET /api/orgs/{org}/agent-pools/{poolID}.
func (s *Server) GetAgentPool(w http.ResponseWriter, r *http.Request, org, poolID string) {
	pool, err := s.service.Pool(r.Context(), org, poolID)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if pool.Agents == nil {
		pool.Agents = []api.DeploymentAgentMetadata{}
	}
	s.writeJSON(w, r, http.StatusOK, pool)
}

// PatchAgentPool answers PATCH /api/orgs/{org}/agent-pools/{poolID}.
func (s *Server) PatchAgentPool(w http.ResponseWriter, r *http.Request, org, poolID string) {
	var req api.CreateOrgAgentPoolRequest
	if err := s.decode(w, r, &req); err != nil {
		s.writeError(w, r, err)
		return
	}
	pool, err := s.service.PatchPool(r.Context(), org, poolID, req)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, pool)
}

// DeleteAgentPool answers DELETE /api/orgs/{org}/agent-pools/{poolID}.
func (s *Server) DeleteAgentPool(w http.ResponseWriter, r *http.Request, org, poolID string, params DeleteAgentPoolParams) {
	if err := s.service.DeletePool(r.Context(), org, poolID, params.Force); err != nil {
		s.writeError(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
