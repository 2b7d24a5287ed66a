package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/server"
)

const publicURL = "http://longshore.example"

// link asks for a URL and returns its path, for this server.
func (s *site) link(t testing.TB, stack, token, body string) (path string, link api.CacheURLResponse) {
	t.Helper()
	s.want(t, 200, "POST", stack+"/cache/url", token, body).decode(t, &link)
	path, ours := strings.CutPrefix(link.URL, publicURL)
	if !ours || !strings.HasPrefix(path, "/api/blobs?") {
		t.Fatalf("the URL is %s, want one below %s", link.URL, publicURL)
	}
	return path, link
}

func TestCache(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	job := s.claim(t).JobToken
	get, link := s.link(t, stackPath, job, `{"method":"GET","key":"npm-2","prefix":"npm-"}`)
	if link.Key != "npm-2" || link.Size != 0 {
		t.Errorf("of an empty cache: %+v", link)
	}
	s.want(t, 404, "GET", get, "", "")
	put, _ := s.link(t, stackPath, job, `{"method":"PUT","key":"npm-1"}`)
	s.want(t, 200, "PUT", put, "", "content")
	s.want(t, 403, "GET", put, "", "")
	get, link = s.link(t, stackPath, job, `{"method":"GET","key":"npm-2","prefix":"npm-"}`)
	if link.Key != "npm-1" || link.Size != 7 {
		t.Errorf("a partial hit is %+v", link)
	}
	if r := s.want(t, 206, "GET", get, "", "", "Range: bytes=3-"); string(r.body) != "tent" || r.header.Get("ETag") == "" {
		t.Errorf("a range is %q %v", r.body, r.header)
	}
	get, link = s.link(t, stackPath, s.user, `{"method":"GET","key":"npm-1"}`)
	if r := s.want(t, 200, "GET", get, "", ""); string(r.body) != "content" || link.Key != "npm-1" {
		t.Errorf("a user gets %q of %+v", r.body, link)
	}
	for range 2 {
		s.want(t, 200, "DELETE", stackPath+"/cache/entries/npm-1", job, "")
	}
	s.want(t, 404, "GET", get, "", "")

	s.want(t, 200, "PUT", put, "", "content")
	s.want(t, 403, "DELETE", stackPath+"/cache", job, "") // it is of all stacks of the project
	s.want(t, 200, "DELETE", stackPath+"/cache", s.user, "")
	s.want(t, 404, "GET", get, "", "")
	s.want(t, 405, "POST", "/api/blobs", "", "")
}

func TestCacheBelongsToStacks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	mine := s.claim(t).JobToken
	const other = "/api/stacks/default/shop/other/deployments"
	s.want(t, 202, "POST", other, s.user, simple)
	var theirs api.AgentWorkflowDefinition
	s.want(t, 200, "GET", "/api/deployments/poll", s.pool, "").decode(t, &theirs)
	put, _ := s.link(t, other, theirs.JobToken, `{"method":"PUT","key":"npm-1"}`)
	s.want(t, 200, "PUT", put, "", "theirs")

	for _, call := range []string{"POST " + other + "/cache/url", "DELETE " + other + "/cache/entries/npm-1"} {
		method, path, _ := strings.Cut(call, " ")
		if r := s.want(t, 403, method, path, mine, `{"method":"GET","key":"npm-1"}`); !strings.Contains(r.message(t), "another stack") {
			t.Errorf("%s: %s", call, r.body)
		}
	}
	get, _ := s.link(t, stackPath, mine, `{"method":"GET","key":"npm-1","prefix":"npm"}`)
	s.want(t, 404, "GET", get, "", "")
	s.want(t, 403, "GET", strings.Replace(get, "prod", "other", 1), "", "")
}

func TestCacheRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	work := s.claim(t)
	for body, want := range map[string]string{
		`{"method":"HEAD","key":"a"}`:                  `method: "HEAD" is neither GET nor PUT`,
		`{"key":"a"}`:                                  `method: "" is neither`,
		`{"method":"GET"}`:                             `key: "" is no key`,
		`{"method":"PUT","key":"../a"}`:                `key: "../a" is no key: want 1 to 200 letters`,
		`{"method":"GET","key":"a","prefix":"a/"}`:     `prefix: "a/" is no key`,
		`{"method":"GET","key":"a","prefix":["npm-"]}`: "prefix: want a text",
		`{"method":"no","key":"."}`:                    "; ",
	} {
		if r := s.want(t, 400, "POST", stackPath+"/cache/url", work.JobToken, body); !strings.Contains(r.message(t), want) {
			t.Errorf("%s: %s, want %q", body, r.body, want)
		}
	}
	s.want(t, 400, "DELETE", stackPath+"/cache/entries/.a", work.JobToken, "")
	s.want(t, 404, "POST", "/api/stacks/default/shop/nobody/deployments/cache/url", s.user, `{"method":"GET","key":"a"}`)
	s.want(t, 404, "DELETE", "/api/stacks/foreign/shop/prod/deployments/cache", s.user, "")

	path := "/api/workflow/jobs/" + work.JobID + "/1/status"
	s.want(t, 200, "PATCH", path, work.JobToken, `{"status":"running"}`)
	s.want(t, 200, "PATCH", path, work.JobToken, `{"status":"failed"}`)
	if r := s.want(t, 403, "POST", stackPath+"/cache/url", work.JobToken, `{"method":"PUT","key":"a"}`); !strings.Contains(r.message(t), "has ended") {
		t.Errorf("a job that has ended: %s", r.body)
	}
}

// TestNoCache: a server may keep none.
func TestNoCache(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.create(t)
	bare := control.New(control.Options{Store: s.db, Sealer: s.sealer, PublicURL: publicURL})
	s.Server = server.New(server.Options{Service: bare})
	s.serve(t)
	if r := s.want(t, 404, "POST", stackPath+"/cache/url", s.user, `{"method":"GET","key":"a"}`); !strings.Contains(r.message(t), "keeps no dependency cache") {
		t.Errorf("%s", r.body)
	}
	if r := s.do(t, "GET", "/api/blobs?obj=a", "", ""); r.code != http.StatusNotFound {
		t.Errorf("/api/blobs = %d, want 404", r.code)
	}
}
