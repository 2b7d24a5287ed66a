package server

import (
	"net/http"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// initiatorHeader says what asked for a deployment.
const initiatorHeader = "X-Pulumi-Deployment-Initiator"

// CreateDeployment answers POST /api/stacks/{org}/{project}/{stack}/deployments.
func (s *Server) CreateDeployment(w http.ResponseWriter, r *http.Request, org, project, stack string) {
	var req api.CreateDeploymentRequest
	if err := s.decode(w, r, &req); err != nil {
		s.writeError(w, r, err)
		return
	}
	created, err := s.service.CreateDeployment(r.Context(), from(r).User, stackRef(org, project, stack), req, clip(r.Header.Get(initiatorHeader)))
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusAccepted, created)
}

// ListDeployments answers GET /api/stacks/{org}/{project}/{stack}/deployments.
func (s *Server) ListDeployments(w http.ResponseWriter, r *http.Request, org, project, stack string, params ListDeploymentsParams) {
	list, err := s.list(r, stackRef(org, project, stack), params)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, list)
}

func (s *Server) list(r *http.Request, stack control.StackRef, params ListDeploymentsParams) (api.ListDeploymentResponseV2, error) {
	page, err := within("page", params.Page, 1, 1<<31-1, 1)
	if err != nil {
		return api.ListDeploymentResponseV2{}, err
	}
	size, err := within("pageSize", params.PageSize, 1, 100, 10)
	if err != nil {
		return api.ListDeploymentResponseV2{}, err
	}
	list, err := s.service.Deployments(r.Context(), stack, control.ListQuery{Page: int(page), PageSize: int(size), Sort: params.Sort, Asc: params.Asc})
	if list.Deployments == nil {
		list.Deployments = []api.ListDeploymentSnapshot{}
	}
	return list, err
}

// GetDeployment answers GET /api/stacks/{org}/{project}/{stack}/deployments/{deploymentID}.
func (s *Server) GetDeployment(w http.ResponseWriter, r *http.Request, org, project, stack, deploymentID string) {
	deployment, err := s.service.Deployment(r.Context(), stackRef(org, project, stack), deploymentID)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, deployment)
}

// GetDeploymentByVersion answers GET /api/stacks/{org}/{project}/{stack}/deployments/version/{version}.
func (s *Server) GetDeploymentByVersion(w http.ResponseWriter, r *http.Request, org, project, stack string, version int64) {
	deployment, err := s.service.DeploymentByVersion(r.Context(), stackRef(org, project, stack), version)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, deployment)
}

// CancelDeployment answers POST /api/stacks/{org}/{project}/{stack}/deployments/{deploymentID}/cancel.
func (s *Server) CancelDeployment(w http.ResponseWriter, r *http.Request, org, project, stack, deploymentID string) {
	if err := s.service.CancelDeployment(r.Context(), from(r).User, stackRef(org, project, stack), deploymentID); err != nil {
		s.writeError(w, r, err)
		return
	}
	s.ok(w, r)
}

// within returns the value of an optional number, which must lie between low and high.
func within(name string, value *int64, low, high, otherwise int64) (int64, error) {
	if value == nil {
		return otherwise, nil
	}
	if *value < low || *value > high {
		return 0, api.Errorf(http.StatusBadRequest, "%s: %d is out of range, want %d to %d", name, *value, low, high)
	}
	return *value, nil
}
