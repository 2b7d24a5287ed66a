package server

import (
	"net/http"

	"github.com/longshore-run/longshore/internal/api"
)

// GetCacheURL answers POST /api/stacks/{org}/{project}/{stack}/deployments/cache/url.
func (s *Server) GetCacheURL(w http.ResponseWriter, r *http.Request, org, project, stack string) {
	var req api.CacheURLRequest
	if err := s.decode(w, r, &req); err != nil {
		s.writeError(w, r, err)
		return
	}
	link, err := s.service.CacheURL(r.Context(), from(r).Principal, stackRef(org, project, stack), req)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, link)
}

// DropCacheEntry answers DELETE /api/stacks/{org}/{project}/{stack}/deployments/cache/entries/{key}.
func (s *Server) DropCacheEntry(w http.ResponseWriter, r *http.Request, org, project, stack, key string) {
	if err := s.service.DropCacheEntry(r.Context(), from(r).Principal, stackRef(org, project, stack), key); err != nil {
		s.writeError(w, r, err)
		return
	}
	s.ok(w, r)
}

// ClearCache answers DELETE /api/stacks/{org}/{project}/{stack}/deployments/cache.
func (s *Server) ClearCache(w http.ResponseWriter, r *http.Request, org, project, stack string) {
	if err := s.service.ClearCache(r.Context(), from(r).Principal, stackRef(org, project, stack)); err != nil {
		s.writeError(w, r, err)
		return
	}
	s.ok(w, r)
}
