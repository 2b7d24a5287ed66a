package server_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// transcript writes down what is said to a server and what it answers, in a form
// that is the same every time.
type transcript struct {
	*site
	text  strings.Builder
	names map[string]string
}

var (
	volatile = regexp.MustCompile(`ls[upj]-[A-Za-z0-9_-]{43}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	script   = regexp.MustCompile(`"run": "set -e.*"`) // held by the tests of package control
	moment   = regexp.MustCompile(`"20[2-9][0-9]-[0-9-]+T[0-9:.]+Z"`)
	seconds  = regexp.MustCompile(`("(?:created|lastSeen|lastDeployment)": )[1-9][0-9]{9}`)
)

func (w *transcript) steady(text string) string {
	text = volatile.ReplaceAllStringFunc(text, func(s string) string {
		if w.names[s] == "" {
			w.names[s] = fmt.Sprintf("<%s-%d>", map[bool]string{true: "token", false: "id"}[strings.HasPrefix(s, "ls")], len(w.names)+1)
		}
		return w.names[s]
	})
	text = script.ReplaceAllString(text, `"run": "<script>"`)
	return seconds.ReplaceAllString(moment.ReplaceAllString(text, `"<time>"`), "$1<seconds>")
}

func (w *transcript) call(t *testing.T, method, path, token, body string, headers ...string) reply {
	t.Helper()
	r := w.do(t, method, path, token, body, headers...)
	fmt.Fprintf(&w.text, "> %s %s\n", method, w.steady(path))
	for _, h := range headers {
		fmt.Fprintf(&w.text, "> %s\n", h)
	}
	if body != "" {
		fmt.Fprintf(&w.text, "%s\n", w.steady(body))
	}
	fmt.Fprintf(&w.text, "< %d", r.code)
	for _, name := range []string{"Content-Type", "Preference-Applied"} {
		if v := r.header.Get(name); v != "" {
			fmt.Fprintf(&w.text, " %s: %s", name, v)
		}
	}
	w.text.WriteString("\n")
	if len(r.body) > 0 {
		w.text.WriteString(w.steady(indent(t, r.body)) + "\n")
	}
	w.text.WriteString("\n")
	return r
}

// TestWire: what goes over the wire, call by call, is in testdata/wire.txt and
// does not change unseen.
func TestWire(t *testing.T) {
	t.Parallel()
	w := &transcript{site: newSite(t), names: map[string]string{}}
	w.pools(t)
	w.deployment(t)
	w.job(t)
	w.readBack(t)

	golden := filepath.Join("testdata", "wire.txt")
	if *update {
		check(t, os.WriteFile(golden, []byte(w.text.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	check(t, err)
	if diff := cmp.Diff(string(want), w.text.String()); diff != "" {
		t.Errorf("the wire differs from %s (-want +got), see with git diff after go test ./internal/server -update:\n%s", golden, diff)
	}
}

func (w *transcript) pools(t *testing.T) {
	w.call(t, "GET", "/api/user", w.user, "")
	w.call(t, "GET", "/api/user/organizations/default", w.user, "")
	w.call(t, "GET", "/api/capabilities", "", "")
	var made struct{ ID string }
	w.call(t, "POST", "/api/orgs/default/agent-pools", w.user, `{"name":"second","description":"in the cellar"}`).decode(t, &made)
	w.call(t, "PATCH", "/api/orgs/default/agent-pools/"+made.ID, w.user, `{"description":"in the attic"}`)
	w.call(t, "GET", "/api/orgs/default/agent-pools", w.user, "")
	w.call(t, "DELETE", "/api/orgs/default/agent-pools/"+made.ID, w.user, "")
}

func (w *transcript) deployment(t *testing.T) {
	const initiator = "X-Pulumi-Deployment-Initiator: automation-api"
	w.call(t, "POST", stackPath, w.user, `{"operation":"update","inheritSettings":true,"executorContext":{"workingDirectory":"","executorImage":{"reference":"img:1","credentials":{"username":"u","password":{"secret":"p"}}}},"sourceContext":{"git":{"repoUrl":"https://github.com/a/b","branch":"main","repoDir":"infra","gitAuth":{"accessToken":{"secret":"tok"}}}},"operationContext":{"preRunCommands":["echo hi"],"operation":"","environmentVariables":{"BAR":{"secret":"2"},"FOO":"1","BAZ":{"isSecret":true,"value":"3"}}},"agentPoolID":null,"surprise":1}`, initiator)
	w.call(t, "POST", "/api/preview/default/shop/prod/deployments", w.user, `{"sourceContext":{"git":{"repoURL":"https://github.com/a/b","branch":"refs/heads/main"}},"operationContext":{"operation":"preview"}}`)
	w.call(t, "GET", stackPath+"/version/1", w.user, "")
	w.call(t, "GET", stackPath+"?page=1&pageSize=1&asc=true", w.user, "")
	w.call(t, "GET", "/api/preview/default/shop/prod/deployments?pageSize=1", w.user, "")
}

func (w *transcript) job(t *testing.T) {
	var work struct{ JobID, JobToken, TypeSpecificID string }
	w.call(t, "GET", "/api/deployments/poll", w.pool, "", "Prefer: wait=5").decode(t, &work)
	w.call(t, "GET", "/api/deployments/poll", w.pool, "")
	w.call(t, "GET", "/api/deployments/"+work.TypeSpecificID+"/status", w.pool, "")
	job := "/api/workflow/jobs/" + work.JobID
	w.call(t, "GET", job, work.JobToken, "")
	w.call(t, "GET", "/api/user", work.JobToken, "")
	w.call(t, "PATCH", job+"/0/status", work.JobToken, `{"status":"running"}`)
	batch := `{"offset":0,"lines":[{"t":"2019-05-06T07:08:09.123456789Z","l":"pulling\n"},{"t":"2019-05-06T07:08:10Z","l":"done\r\n"}]}`
	w.call(t, "POST", job+"/0/logs", work.JobToken, batch)
	w.call(t, "POST", job+"/0/logs", work.JobToken, batch)
	w.call(t, "POST", job+"/0/logs", work.JobToken, strings.Replace(batch, `"offset":0`, `"offset":7`, 1))
	w.call(t, "POST", job+"/heartbeat", work.JobToken, "")
	w.call(t, "PATCH", job+"/0/status", work.JobToken, `{"status":"succeeded"}`)
	w.call(t, "PATCH", job+"/3/status", work.JobToken, `{"status":"running"}`)
	w.call(t, "PATCH", job+"/1/status", work.JobToken, `{"status":"running"}`)
	w.call(t, "POST", job+"/1/logs", work.JobToken, `{"offset":0,"lines":[{"t":"2019-05-06T07:08:11Z","l":"$ curl\n"}]}`)
	w.call(t, "PATCH", job+"/1/status", work.JobToken, `{"status":"failed"}`)
	w.call(t, "POST", job+"/heartbeat", work.JobToken, "")
	w.call(t, "GET", "/api/deployments/"+work.TypeSpecificID+"/status", w.pool, "", "Prefer: wait=60")
	w.call(t, "GET", "/api/orgs/default/agent-pools/"+w.poolID, w.user, "")
}

func (w *transcript) readBack(t *testing.T) {
	var first, second struct{ ID string }
	w.do(t, "GET", stackPath+"/version/1", w.user, "").decode(t, &first)
	w.do(t, "GET", stackPath+"/version/2", w.user, "").decode(t, &second)
	w.call(t, "GET", stackPath+"/"+first.ID, w.user, "")
	var page struct{ NextToken string }
	for path := stackPath + "/" + first.ID + "/logs"; ; path = stackPath + "/" + first.ID + "/logs?continuationToken=" + page.NextToken {
		page.NextToken = ""
		w.call(t, "GET", path, w.user, "").decode(t, &page)
		if page.NextToken == "" {
			break
		}
	}
	w.call(t, "GET", "/api/preview/default/shop/prod/deployments/"+first.ID+"/logs?job=0&step=0&offset=1&count=1", w.user, "")
	w.call(t, "POST", stackPath+"/"+second.ID+"/cancel", w.user, "")
	w.call(t, "POST", "/api/preview/default/shop/prod/deployments/"+second.ID+"/cancel", w.user, "")
	w.call(t, "GET", "/api/preview/default/shop/prod/deployments/version/2", w.user, "")
	w.call(t, "GET", "/api/preview/default/shop/prod/deployments/"+second.ID, w.user, "")
}
