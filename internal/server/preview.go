package server

import "net/http"

// The older paths, /api/preview/{org}/{project}/{stack}/deployments, do what the
// newer ones do. Their create body is read by the same type, whose members are
// found in any case (repoURL, repoUrl). Only the list has another shape.

// CreatePreviewDeployment is CreateDeployment by the older path.
func (s *Server) CreatePreviewDeployment(w http.ResponseWriter, r *http.Request, org, project, stack string) {
	s.CreateDeployment(w, r, org, project, stack)
}

// ListPreviewDeployments is ListDeployments by the older path: a bare array.
func (s *Server) ListPreviewDeployments(w http.ResponseWriter, r *http.Request, org, project, stack string, params ListPreviewDeploymentsParams) {
	list, err := s.list(r, stackRef(org, project, stack), ListDeploymentsParams(params))
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, list.Deployments)
}

// GetPreviewDeployment is GetDeployment by the older path.
func (s *Server) GetPreviewDeployment(w http.ResponseWriter, r *http.Request, org, project, stack, deploymentID string) {
	s.GetDeployment(w, r, org, project, stack, deploymentID)
}

// GetPreviewDeploymentByVersion is GetDeploymentByVersion by the older path.
func (s *Server) GetPreviewDeploymentByVersion(w http.ResponseWriter, r *http.Request, org, project, stack string, version int64) {
	s.GetDeploymentByVersion(w, r, org, project, stack, version)
}

// CancelPreviewDeployment is CancelDeployment by the older path.
func (s *Server) CancelPreviewDeployment(w http.ResponseWriter, r *http.Request, org, project, stack, deploymentID string) {
	s.CancelDeployment(w, r, org, project, stack, deploymentID)
}

// GetPreviewDeploymentLogs is GetDeploymentLogs by the older path.
func (s *Server) GetPreviewDeploymentLogs(w http.ResponseWriter, r *http.Request, org, project, stack, deploymentID string, params GetPreviewDeploymentLogsParams) {
	s.GetDeploymentLogs(w, r, org, project, stack, deploymentID, GetDeploymentLogsParams(params))
}
