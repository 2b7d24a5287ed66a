package server_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// FuzzRequests sends what it likes to every kind of call that reads something:
// whatever comes, the answer is no 5xx, and an error is one that a program can
// read.
func FuzzRequests(f *testing.F) {
	s := newSiteLogging(f, zap.NewNop())
	work := s.claim(f)
	job := "/api/workflow/jobs/" + work.JobID
	calls := []struct{ method, path, token string }{
		{"POST", stackPath, s.user},
		{"GET", stackPath, s.user},
		{"GET", stackPath + "/" + work.TypeSpecificID + "/logs", s.user},
		{"GET", "/api/orgs/default/agent-pools", s.user},
		{"POST", "/api/orgs/default/agent-pools", s.user},
		{"POST", job + "/0/logs", work.JobToken},
		{"PATCH", job + "/1/status", work.JobToken},
		{"POST", job + "/heartbeat", work.JobToken},
		{"GET", "/api/deployments/poll", s.pool},
		{"GET", "/api/deployments/executor", s.pool},
		{"GET", "/api/user", s.user},
	}
	f.Add(0, "", "", []byte(simple))
	f.Add(0, "", "", []byte(`{"operation":"update","operationContext":{"environmentVariables":{"A":{"secret":"x"},"":null}},"executorContext":{"executorImage":{"reference":"x"}}}`))
	f.Add(1, "", "page=1&pageSize=100&sort=status&asc=true", []byte(nil))
	f.Add(1, "", "page=99999999999999999999&asc=perhaps", []byte(nil))
	f.Add(2, "", "continuationToken=0.1.2", []byte(nil))
	f.Add(2, "", "step=0&job=0&offset=-1&count=500", []byte(nil))
	f.Add(4, "", "", []byte(`{"name":"\u0000","description":1}`))
	f.Add(5, "", "", []byte(`{"offset":0,"lines":[{"t":"2026-11-23T10:00:00Z","l":"x\n"}]}`))
	f.Add(5, "", "", []byte(`{"offset":9223372036854775807,"lines":[{"t":"","l":"\ud800"}]}`))
	f.Add(6, "", "", []byte(`{"status":"running"}`))
	f.Add(8, "token lsp-", "", []byte(nil))
	f.Add(10, "Bearer lsu-\xff", "", []byte(nil))
	f.Fuzz(func(t *testing.T, which int, authorization, query string, body []byte) {
		call := calls[int(uint(which)%uint(len(calls)))]
		target, err := url.Parse("http://longshore.example" + call.path)
		check(t, err)
		target.RawQuery = query
		r := httptest.NewRequestWithContext(t.Context(), call.method, "/", bytes.NewReader(body))
		r.URL = target
		if authorization == "" {
			authorization = "token " + call.token
		}
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError {
			t.Fatalf("%s %s?%s with %q = %d %s", call.method, call.path, query, body, w.Code, w.Body)
		}
		if w.Code >= http.StatusBadRequest {
			var e api.Error
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code != w.Code || strings.TrimSpace(e.Message) == "" {
				t.Errorf("%s %s = %d %q, want an error with the code and a message", call.method, call.path, w.Code, w.Body)
			}
		}
	})
}
