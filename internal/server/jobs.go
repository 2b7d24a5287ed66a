package server

import (
	"net/http"

	"github.com/longshore-run/longshore/internal/api"
)

// GetJobDefinition answers GET /api/workflow/jobs/{jobID}.
func (s *Server) GetJobDefinition(w http.ResponseWriter, r *http.Request, jobID string) {
	c := from(r)
	p := c.Principal
	p.Holder = bounded(r.Header.Get(api.HeaderHolder))
	definition, err := s.service.JobDefinition(r.Context(), p, jobID, c.token)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.writeJSON(w, r, http.StatusOK, definition)
}

// maxHolder is far beyond what an id needs.
const maxHolder = 128

// bounded returns an id, cut to what is kept of one.
func bounded(id string) string { return id[:min(len(id), maxHolder)] }

// Heartbeat answers POST /api/workflow/jobs/{jobID}/heartbeat.
func (s *Server) Heartbeat(w http.ResponseWriter, r *http.Request, jobID string) {
	if err := s.service.Heartbeat(r.Context(), from(r).Principal, jobID); err != nil {
		s.writeError(w, r, err)
		return
	}
	s.ok(w, r)
}

// ReportStepStatus answers PATCH /api/workflow/jobs/{jobID}/{step}/status.
func (s *Server) ReportStepStatus(w http.ResponseWriter, r *http.Request, jobID string, step int) {
	var report api.StepStatusReport
	err := s.decode(w, r, &report)
	if err == nil {
		err = s.service.ReportStep(r.Context(), from(r).Principal, jobID, step, report.Status)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.ok(w, r)
}

// AppendStepLogs answers POST /api/workflow/jobs/{jobID}/{step}/logs.
func (s *Server) AppendStepLogs(w http.ResponseWriter, r *http.Request, jobID string, step int) {
	batch, err := s.logBatch(w, r)
	if err == nil {
		err = s.service.AppendLog(r.Context(), from(r).Principal, jobID, step, batch)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.ok(w, r)
}

// logBatch reads a log batch. It is the busiest call of all: the body is read
// once, into a buffer that was used before, and decoded in one pass.
func (s *Server) logBatch(w http.ResponseWriter, r *http.Request) (api.LogBatch, error) {
	buf := s.bodies.get()
	defer s.bodies.put(buf)
	if err := readBody(w, r, buf, maxLogBody); err != nil {
		return api.LogBatch{}, err
	}
	if buf.Len() == 0 {
		return api.LogBatch{}, api.Errorf(http.StatusBadRequest, "the body is empty, want a log batch")
	}
	batch, err := api.DecodeLogBatch(buf.Bytes())
	if err != nil {
		return api.LogBatch{}, badBody(err)
	}
	return batch, nil
}
