package server

import (
	"cmp"
	"net/http"

	"github.com/longshore-run/longshore/internal/api"
)

// GetUser answers GET /api/user. A job has no user of its own; the Pulumi CLI
// only wants the name not to be empty.
func (s *Server) GetUser(w http.ResponseWriter, r *http.Request) {
	c := from(r)
	login := cmp.Or(c.User.Name, string(c.Kind))
	s.writeJSON(w, r, http.StatusOK, api.CurrentUser{
		ID:          cmp.Or(c.User.ID, c.JobID),
		GithubLogin: login,
		Name:        login,
		Email:       c.User.Email,
		Identities:  []string{},
		Organizations: []api.OrganizationSummary{
			{GithubLogin: c.Organization, Name: c.Organization},
		},
	})
}

// GetDefaultOrganization answers GET /api/user/organizations/default.
func (s *Server) GetDefaultOrganization(w http.ResponseWriter, r *http.Request) {
	s.writeJSON(w, r, http.StatusOK, api.DefaultOrganization{GitHubLogin: from(r).Organization})
}

// GetCapabilities answers GET /api/capabilities.
func (s *Server) GetCapabilities(w http.ResponseWriter, r *http.Request) {
	s.writeJSON(w, r, http.StatusOK, api.CapabilitiesResponse{Capabilities: []api.Capability{}})
}
