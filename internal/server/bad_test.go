package server_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestBadInput: a message that says what to change, a 4xx, and nothing half done.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	work := s.claim(t)
	job := "/api/workflow/jobs/" + work.JobID
	nowhere := "/00000000-0000-4000-8000-000000000000"
	logs := stackPath + "/" + work.TypeSpecificID + "/logs"
	for name, c := range map[string]struct {
		code                      int
		call, token, body, saying string
	}{
		"broken JSON":                 {400, "POST " + stackPath, s.user, `{"operation":`, "the body is not valid JSON"},
		"something after the JSON":    {400, "POST " + stackPath, s.user, simple + "}", "the body is not valid JSON"},
		"no body":                     {400, "POST " + stackPath, s.user, "", "the body is empty, want a JSON object"},
		"null":                        {400, "POST " + stackPath, s.user, " null ", "the body is a JSON null, want an object"},
		"a list":                      {400, "POST " + stackPath, s.user, "[]", "the body is a JSON array, want an object"},
		"a text for a list":           {400, "POST " + stackPath, s.user, `{"operationContext":{"preRunCommands":"ls"}}`, "operationContext.preRunCommands: want a list, not a JSON string"},
		"a number for a text":         {400, "POST " + stackPath, s.user, `{"operation":7}`, "operation: want a text, not a JSON number"},
		"a text for a switch":         {400, "POST " + stackPath, s.user, `{"inheritSettings":"yes"}`, "inheritSettings: want true or false, not a JSON string"},
		"a secret of no form":         {400, "POST " + stackPath, s.user, `{"operation":"update","operationContext":{"environmentVariables":{"A":{"sesame":1}}}}`, "secret value: want"},
		"an unknown operation":        {400, "POST " + stackPath, s.user, `{"operation":"deploy"}`, "operation"},
		"branch and commit":           {400, "POST " + stackPath, s.user, `{"operation":"update","sourceContext":{"git":{"repoUrl":"https://x/y","branch":"a","commit":"b"}}}`, "branch and commit"},
		"repoDir that leaves":         {400, "POST /api/preview/default/shop/prod/deployments", s.user, `{"operation":"update","sourceContext":{"git":{"repoURL":"https://x/y","branch":"a","repoDir":"../z"}}}`, "leaves the repository"},
		"an unknown pool":             {400, "POST " + stackPath, s.user, `{"operation":"update","agentPoolID":"nope"}`, "agentPoolID"},
		"an unknown organization":     {404, "POST /api/stacks/nobody/shop/prod/deployments", s.user, simple, "nobody"},
		"an unknown stack":            {404, "GET /api/stacks/default/shop/nope/deployments" + nowhere, s.user, "", ""},
		"an unknown deployment":       {404, "GET " + stackPath + nowhere, s.user, "", ""},
		"an id that is none":          {404, "GET " + stackPath + "/abc", s.user, "", ""},
		"an unknown version":          {404, "GET " + stackPath + "/version/99", s.user, "", ""},
		"a version that is none":      {400, "GET " + stackPath + "/version/one", s.user, "", `version: "one" is not a whole number`},
		"cancel of an unknown":        {404, "POST " + stackPath + nowhere + "/cancel", s.user, "", ""},
		"page 0":                      {400, "GET " + stackPath + "?page=0", s.user, "", "page: 0 is out of range, want 1 to"},
		"a page size of 0":            {400, "GET " + stackPath + "?pageSize=0", s.user, "", "pageSize: 0 is out of range, want 1 to 100"},
		"a page size of 101":          {400, "GET " + stackPath + "?pageSize=101", s.user, "", "pageSize: 101 is out of range, want 1 to 100"},
		"a page that is none":         {400, "GET " + stackPath + "?page=last", s.user, "", `page: "last" is not a whole number`},
		"asc that is none":            {400, "GET " + stackPath + "?asc=maybe", s.user, "", `asc: "maybe" is not a truth value`},
		"an unknown order":            {400, "GET " + stackPath + "?sort=colour", s.user, "", "sort"},
		"the same in the older list":  {400, "GET /api/preview/default/shop/prod/deployments?pageSize=1000", s.user, "", "pageSize: 1000 is out of range"},
		"500 lines":                   {400, "GET " + logs + "?job=0&step=0&count=500", s.user, "", "count: 500 is out of range, want 1 to 499"},
		"no lines":                    {400, "GET " + logs + "?step=0&count=0", s.user, "", "count: 0 is out of range"},
		"a negative offset":           {400, "GET " + logs + "?step=0&offset=-1", s.user, "", "offset: -1 is out of range"},
		"a job without a step":        {400, "GET " + logs + "?job=0", s.user, "", "step: missing"},
		"a token and a step":          {400, "GET " + logs + "?step=0&nextToken=0.0.0", s.user, "", "send one or the other"},
		"a token that is none":        {400, "GET " + logs + "?continuationToken=sesame", s.user, "", "oken"},
		"a step that is not there":    {404, "GET " + logs + "?step=77", s.user, "", ""},
		"a pool without a name":       {400, "POST /api/orgs/default/agent-pools", s.user, `{"description":"x"}`, "name"},
		"an unknown pool to delete":   {404, "DELETE /api/orgs/default/agent-pools" + nowhere, s.user, "", ""},
		"a pool in use":               {400, "DELETE /api/orgs/default/agent-pools/" + s.poolID, s.user, "", "force"},
		"force that is none":          {400, "DELETE /api/orgs/default/agent-pools/" + s.poolID + "?force=perhaps", s.user, "", `force: "perhaps" is not a truth value`},
		"logs of a step not there":    {404, "POST " + job + "/99/logs", work.JobToken, `{"offset":0,"lines":[{"t":"2020-01-01T00:00:00Z","l":"x\n"}]}`, "99"},
		"logs of a step that is none": {400, "POST " + job + "/one/logs", work.JobToken, `{}`, `step: "one" is not a whole number`},
		"a log batch that is none":    {400, "POST " + job + "/0/logs", work.JobToken, `{"offset":"x","lines":[]}`, "log batch: want"},
		"a broken log batch":          {400, "POST " + job + "/0/logs", work.JobToken, `{"offset":0,"lines":[{"t":`, "the body is not valid JSON"},
		"an empty log batch":          {400, "POST " + job + "/0/logs", work.JobToken, "", "the body is empty"},
		"a gap in the log":            {409, "POST " + job + "/0/logs", work.JobToken, `{"offset":5,"lines":[{"t":"2020-01-01T00:00:00Z","l":"x\n"}]}`, "gap"},
		"a status that is none":       {400, "PATCH " + job + "/1/status", work.JobToken, `{"status":"done"}`, "done"},
		"a status out of turn":        {409, "PATCH " + job + "/3/status", work.JobToken, `{"status":"running"}`, ""},
		"a status of no step":         {404, "PATCH " + job + "/99/status", work.JobToken, `{"status":"running"}`, "99"},
		"an unknown processor":        {400, "GET /api/deployments/executor?arch=sparc", s.pool, "", "want amd64 or arm64"},
		"an executor not there":       {404, "GET /api/deployments/executor", s.pool, "", "--executor-dir"},
		"a status of no deployment":   {404, "GET /api/deployments" + nowhere + "/status", s.pool, "", ""},
		"a path that is none":         {404, "GET /api/nothing", "", "", "there is nothing at /api/nothing"},
		"a method that is none":       {405, "PUT " + stackPath, "", "", "PUT is not possible here, only GET, POST"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method, path, _ := strings.Cut(c.call, " ")
			got := s.do(t, method, path, c.token, c.body)
			if got.code != c.code {
				t.Fatalf("%s = %d %s, want %d", c.call, got.code, got.body, c.code)
			}
			message := got.message(t)
			if !strings.Contains(message, c.saying) || strings.Contains(message, "sesame") || strings.Contains(message, "api.") {
				t.Errorf("%s says %q, want %q in it, and neither the input nor Go types", c.call, message, c.saying)
			}
		})
	}
}

// TestUnknownLooksAlike: what is not there and what belongs to others cannot be
// told apart by the answer.
func TestUnknownLooksAlike(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.create(t)
	const nobody = "00000000-0000-4000-8000-000000000000"
	there := s.want(t, 404, "GET", "/api/stacks/default/shop/staging/deployments/"+id, s.user, "").message(t)
	not := s.want(t, 404, "GET", "/api/stacks/default/shop/staging/deployments/"+nobody, s.user, "").message(t)
	if strings.ReplaceAll(there, id, nobody) != not {
		t.Errorf("a deployment of another stack answers %q, one that is not there %q", there, not)
	}
}

func zip(t testing.TB, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := io.WriteString(w, text)
	check(t, err)
	check(t, w.Close())
	return out.Bytes()
}

func TestBodies(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	work := s.claim(t)
	status := "/api/workflow/jobs/" + work.JobID + "/0/status"
	log := "/api/workflow/jobs/" + work.JobID + "/0/logs"
	pad := func(n int) string { return strings.Repeat(" ", n) }
	const running = `{"status":"running"}`
	batch := func(lines int) string {
		line := `{"t":"2020-01-01T00:00:00Z","l":"` + strings.Repeat("x", 60<<10) + `\n"},`
		return `{"offset":0,"lines":[` + strings.TrimSuffix(strings.Repeat(line, lines), ",") + `]}`
	}
	for _, c := range []struct {
		name, path string
		body       io.Reader
		headers    []string
		code       int
	}{
		{"without a Content-Type", status, strings.NewReader(running), nil, 200},
		{"with one", status, strings.NewReader(running), []string{"Content-Type: application/json"}, 200},
		{"with a foreign one", status, strings.NewReader(running), []string{"Content-Type: text/plain"}, 200},
		{"zipped", status, bytes.NewReader(zip(t, running)), []string{"Content-Encoding: gzip"}, 200},
		{"of unknown length", status, io.MultiReader(strings.NewReader(running)), nil, 200},
		{"as large as may be", status, strings.NewReader(running + pad(1<<20-len(running))), nil, 200},
		{"a byte too large", status, strings.NewReader(running + pad(1<<20-len(running)+1)), nil, 413},
		{"too large and of unknown length", status, io.MultiReader(strings.NewReader(running + pad(2<<20))), nil, 413},
		{"too large when inflated", status, bytes.NewReader(zip(t, running+pad(64<<20))), []string{"Content-Encoding: gzip"}, 413},
		{"zipped and cut off", status, bytes.NewReader(zip(t, running+pad(9999))[:30]), []string{"Content-Encoding: gzip"}, 400},
		{"not zipped as it says", status, strings.NewReader(running), []string{"Content-Encoding: gzip"}, 400},
		{"of an unknown encoding", status, strings.NewReader(running), []string{"Content-Encoding: br"}, 415},
		{"a log batch of 3 MiB", log, strings.NewReader(batch(50)), nil, 200},
		{"a log batch of 5 MiB", log, strings.NewReader(batch(90)), nil, 413},
		{"a zipped log batch", log, bytes.NewReader(zip(t, batch(50))), []string{"Content-Encoding: gzip"}, 200},
	} {
		method := map[bool]string{true: "PATCH", false: "POST"}[c.path == status]
		got := s.send(t, method, c.path, work.JobToken, c.body, c.headers...)
		if got.code != c.code {
			t.Errorf("a body %s = %d %.200s, want %d", c.name, got.code, got.body, c.code)
		} else if got.code == http.StatusRequestEntityTooLarge && !strings.Contains(got.message(t), "MiB") {
			t.Errorf("a body %s = %s, want it to say the limit", c.name, got.body)
		}
	}
	var logs struct{ NextOffset *int64 }
	s.want(t, 200, "GET", stackPath+"/"+work.TypeSpecificID+"/logs?step=0&count=10", s.user, "").decode(t, &logs)
	if logs.NextOffset == nil || *logs.NextOffset != 10 {
		t.Errorf("nextOffset = %v, want 10", logs.NextOffset)
	}
}

// TestMetricsHaveFewLabels: neither ids nor paths become labels.
func TestMetricsHaveFewLabels(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.create(t)
	s.do(t, "GET", stackPath+"/"+id, s.user, "")
	s.do(t, "GET", "/no/such/path", s.user, "")
	s.do(t, "BREW", stackPath, s.user, "")
	text := string(s.want(t, 200, "GET", "/metrics", "", "").body)
	for _, want := range []string{
		`longshore_server_http_requests_total{code="2xx",route="GET /api/stacks/{org}/{project}/{stack}/deployments/{deploymentID}"} 1`,
		`longshore_server_http_requests_total{code="4xx",route="none"} 2`,
		"longshore_server_http_requests_in_flight 1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	for _, bad := range []string{id, "such", "BREW"} {
		if strings.Contains(text, bad) {
			t.Errorf("/metrics has %q in a label", bad)
		}
	}
	for _, probe := range []string{"/healthz", "/readyz"} {
		for _, method := range []string{"GET", "HEAD"} {
			if got := s.do(t, method, probe, "", ""); got.code != 200 {
				t.Errorf("%s %s = %d, want 200", method, probe, got.code)
			}
		}
	}
	if got := s.do(t, "GET", "/healthz", "", "", "X-Request-Id: abc-1"); got.header.Get("X-Request-Id") != "abc-1" || got.header.Get("X-Pulumi-Request-ID") != "abc-1" {
		t.Errorf("headers %v, want the request id that was sent", got.header)
	}
	if got := s.do(t, "GET", "/healthz", "", "", "X-Request-Id: <b>"+fmt.Sprint(id)); strings.Contains(got.header.Get("X-Request-Id"), "<") {
		t.Error("a request id with markup came back")
	}
}
