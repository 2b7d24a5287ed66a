package server

import (
	"cmp"
	"net/http"

	"github.com/longshore-run/longshore/internal/api"
)

// What "__type" says in the two kinds of answer.
const (
	typeLogs     = "DeploymentLogs"
	typeStepLogs = "DeploymentLogsStep"
)

// GetDeploymentLogs answers GET /api/stacks/{org}/{project}/{stack}/deployments/{deploymentID}/logs.
func (s *Server) GetDeploymentLogs(w http.ResponseWriter, r *http.Request, org, project, stack, deploymentID string, params GetDeploymentLogsParams) {
	ref := stackRef(org, project, stack)
	if !params.stepMode() {
		logs, err := s.service.StreamLogs(r.Context(), ref, deploymentID, cmp.Or(params.ContinuationToken, params.NextToken))
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		logs.Type = typeLogs
		if logs.Lines == nil {
			logs.Lines = []api.DeploymentLogLine{}
		}
		s.writeJSON(w, r, http.StatusOK, logs)
		return
	}
	window, err := params.window()
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	logs, err := s.service.StepLogs(r.Context(), ref, deploymentID, int(window.job), int(window.step), window.offset, int(window.count))
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	logs.Type = typeStepLogs
	if logs.Lines == nil {
		logs.Lines = []api.DeploymentStepLogLine{}
	}
	s.writeJSON(w, r, http.StatusOK, logs)
}

// stepMode reports whether the log of one step is asked for.
func (p GetDeploymentLogsParams) stepMode() bool {
	return p.Job != nil || p.Step != nil || p.Offset != nil || p.Count != nil
}

// logWindow is a part of the log of one step.
type logWindow struct{ job, step, offset, count int64 }

func (p GetDeploymentLogsParams) window() (logWindow, error) {
	if p.ContinuationToken != "" || p.NextToken != "" {
		return logWindow{}, api.Errorf(http.StatusBadRequest, "continuationToken reads all steps, job and step read one: send one or the other")
	}
	if p.Step == nil {
		return logWindow{}, api.Errorf(http.StatusBadRequest, "step: missing, it goes with job, offset and count; 0 is Setup")
	}
	const most = 1 << 31
	var out logWindow
	for _, f := range []struct {
		name                 string
		value                *int64
		low, high, otherwise int64
		to                   *int64
	}{
		{"job", p.Job, 0, most, 0, &out.job},
		{"step", p.Step, 0, most, 0, &out.step},
		{"offset", p.Offset, 0, 1 << 62, 0, &out.offset},
		{"count", p.Count, 1, 499, 100, &out.count},
	} {
		v, err := within(f.name, f.value, f.low, f.high, f.otherwise)
		if err != nil {
			return logWindow{}, err
		}
		*f.to = v
	}
	return out, nil
}
