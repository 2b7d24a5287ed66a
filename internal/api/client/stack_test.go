package client_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api/client"
)

func TestCacheURL(t *testing.T) {
	t.Parallel()
	var asked map[string]string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.EscapedPath() != "/api/stacks/acme/shop%2Fweb/dev/deployments/cache/url" || r.Header.Get("Authorization") != "token "+token {
			t.Errorf("%s %s, authorization %q", r.Method, r.URL.EscapedPath(), r.Header.Get("Authorization"))
		}
		asked = map[string]string{}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, `{"url":"https://bucket.example/o?signature=hunter2","key":"npm-0","size":7,"chunked":true}`)
	})
	u, err := c.Stack("acme", "shop/web", "dev", token).CacheURL(t.Context(), "GET", "npm-1", "npm-")
	if err != nil {
		t.Fatal(err)
	}
	if string(u.URL) != "https://bucket.example/o?signature=hunter2" || u.Key != "npm-0" || u.Size != 7 || !u.Chunked {
		t.Errorf("got key %s, size %d", u.Key, u.Size)
	}
	if asked["method"] != "GET" || asked["key"] != "npm-1" || asked["prefix"] != "npm-" {
		t.Errorf("asked for %v", asked)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", u, u, u, u.URL); strings.Contains(text, "hunter2") {
		t.Errorf("printing shows the URL: %s", text)
	}
}

func TestCacheURLFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"not allowed":             {403, `{"code":403,"message":"no"}`, "403 Forbidden: no"},
		"a page in its place":     {200, `<html>`, "not what the service sends"},
		"no URL":                  {200, `{}`, "names no URL"},
		"JSON that breaks off":    {200, `{"url":"https://bucket.example/o?signature=hunter2`, "broken JSON"},
		"a URL of the wrong kind": {200, `{"url":{"secret":"hunter2"}}`, "does not fit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				fmt.Fprint(w, tc.body)
			})
			_, err := c.Stack("acme", "shop", "dev", token).CacheURL(t.Context(), "PUT", "npm-1", "")
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), token) {
				t.Errorf("error = %v, want %q and no secrets", err, tc.want)
			}
		})
	}
}

func TestDropCacheEntry(t *testing.T) {
	t.Parallel()
	for status, fails := range map[int]bool{200: false, 204: false, 404: false, 405: false, 403: true, 500: true} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodDelete || r.URL.Path != "/api/stacks/acme/shop/dev/deployments/cache/entries/npm-1" {
				t.Errorf("%s %s", r.Method, r.URL.Path)
			}
			w.WriteHeader(status)
		}, func(o *client.Options) { o.RetryWait = time.Millisecond })
		if err := c.Stack("acme", "shop", "dev", token).DropCacheEntry(t.Context(), "npm-1"); (err != nil) != fails {
			t.Errorf("%d: error = %v", status, err)
		}
	}
}
