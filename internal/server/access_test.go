package server_test

import (
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// operation is what api/openapi.yaml says about one call.
type operation struct {
	ID       string                `yaml:"operationId"`
	Security []map[string][]string `yaml:"security"`
}

// contract reads every call of api/openapi.yaml, by "METHOD /path".
func contract(t *testing.T) map[string]operation {
	t.Helper()
	text, err := os.ReadFile("../../api/openapi.yaml")
	check(t, err)
	var doc struct {
		Paths map[string]map[string]yaml.Node `yaml:"paths"`
	}
	check(t, yaml.Unmarshal(text, &doc))
	calls := map[string]operation{}
	for path, item := range doc.Paths {
		for method, node := range item {
			if method == "parameters" {
				continue
			}
			var op operation
			check(t, node.Decode(&op))
			calls[strings.ToUpper(method)+" "+path] = op
		}
	}
	return calls
}

var placeholder = regexp.MustCompile(`\{[a-zA-Z]+\}`)

// TestAccess: each call opens for the tokens that api/openapi.yaml names, and
// for no other: without a living token it is a 401, with one of another kind a 403.
func TestAccess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	work := s.claim(t)
	tokens := map[string]string{"userToken": s.user, "poolToken": s.pool, "jobToken": work.JobToken}
	calls := contract(t)
	if len(calls) < 25 {
		t.Fatalf("the contract has %d calls, want all of them", len(calls))
	}
	for _, call := range slices.Sorted(maps.Keys(calls)) {
		t.Run(calls[call].ID, func(t *testing.T) {
			t.Parallel()
			method, path, _ := strings.Cut(call, " ")
			path = placeholder.ReplaceAllString(path, "1")
			opens := map[string]bool{}
			for _, one := range calls[call].Security {
				for name := range one {
					opens[name] = true
				}
			}
			if len(opens) == 0 {
				s.want(t, 200, method, path, "", "")
				return
			}
			for name, token := range map[string]string{
				"no token": "", "a token of nobody": "lsu-" + strings.Repeat("x", 43), "something else": "sesame",
			} {
				if got := s.do(t, method, path, token, "{}"); got.code != http.StatusUnauthorized {
					t.Errorf("%s with %s = %d, want 401", call, name, got.code)
				} else if got.message(t); got.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s with %s: the 401 has no WWW-Authenticate", call, name)
				}
			}
			for kind, token := range tokens {
				got := s.do(t, method, path, token, "{}")
				switch {
				case !opens[kind] && got.code != http.StatusForbidden:
					t.Errorf("%s with a %s = %d, want 403", call, kind, got.code)
				case opens[kind] && got.code == http.StatusUnauthorized:
					t.Errorf("%s with a %s = %d %s, want it to open", call, kind, got.code, got.body)
				}
			}
		})
	}
}

func TestForeignTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	mine := s.claim(t)
	s.want(t, 202, "POST", "/api/stacks/default/shop/other/deployments", s.user, simple)
	var other struct{ JobID, JobToken, TypeSpecificID string }
	s.want(t, 200, "GET", "/api/deployments/poll", s.pool, "").decode(t, &other)
	var second struct{ ID, TokenValue string }
	s.want(t, 200, "POST", "/api/orgs/default/agent-pools", s.user, `{"name":"second"}`).decode(t, &second)

	for _, call := range []string{
		"GET /api/workflow/jobs/" + other.JobID,
		"POST /api/workflow/jobs/" + other.JobID + "/heartbeat",
		"PATCH /api/workflow/jobs/" + other.JobID + "/0/status",
		"POST /api/workflow/jobs/" + other.JobID + "/0/logs",
		"GET /api/workflow/jobs/11111111-1111-4111-8111-111111111111",
	} {
		method, path, _ := strings.Cut(call, " ")
		if got := s.do(t, method, path, mine.JobToken, `{"status":"running","offset":0,"lines":[]}`); got.code != http.StatusForbidden {
			t.Errorf("%s with the token of another job = %d %s, want 403", call, got.code, got.body)
		}
	}
	if got := s.do(t, "GET", "/api/deployments/"+mine.TypeSpecificID+"/status", second.TokenValue, ""); got.code != http.StatusForbidden {
		t.Errorf("status with the token of another pool = %d, want 403", got.code)
	}
	s.want(t, 204, "DELETE", "/api/orgs/default/agent-pools/"+second.ID, s.user, "")
	if got := s.do(t, "GET", "/api/deployments/poll", second.TokenValue, ""); got.code != http.StatusUnauthorized {
		t.Errorf("poll with the token of a deleted pool = %d, want 401", got.code)
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "TOKEN  ", "token "} {
		s.want(t, 200, "GET", "/api/user", "", "", "Authorization: "+scheme+s.user)
	}
	for _, header := range []string{"Basic " + s.user, s.user, "token", "update-token " + s.user} {
		s.want(t, 401, "GET", "/api/user", "", "", "Authorization: "+header)
	}
}
