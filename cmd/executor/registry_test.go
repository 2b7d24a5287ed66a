package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// registry is a service that keeps one template, with its archive elsewhere, at a
// URL that is a secret.
type registry struct {
	service, files *httptest.Server
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{}
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	w := tar.NewWriter(zipped)
	for name, text := range map[string]string{"Pulumi.yaml": "name: vpc\nruntime: yaml\n", "lib/readme.md": "read me\n"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	r.files = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.RawQuery != "signature=s1gn3d" || req.Header.Get("Authorization") != "" {
			http.Error(w, "signature does not match", http.StatusForbidden)
			return
		}
		_, _ = w.Write(archive.Bytes())
	}))
	t.Cleanup(r.files.Close)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/registry/templates/{source}/{publisher}/{name}/versions/{version}", func(w http.ResponseWriter, req *http.Request) {
		var answer any
		switch at := strings.Join([]string{req.PathValue("source"), req.PathValue("publisher"), req.PathValue("name"), req.PathValue("version")}, "/"); {
		case req.Header.Get("Authorization") != "token pul-job":
			w.WriteHeader(http.StatusUnauthorized)
			answer = map[string]any{"code": 401, "message": "Unauthorized"}
		case at == "private/acme/vpc/latest", at == "private/acme/vpc/2.1.0":
			answer = map[string]any{"name": "vpc", "downloadURL": r.files.URL + "/blobs/vpc?signature=s1gn3d"}
		case at == "private/acme/expired/latest":
			answer = map[string]any{"name": "expired", "downloadURL": r.files.URL + "/blobs/vpc?signature=0ld"}
		case at == "private/acme/odd/latest":
			answer = map[string]any{"name": "odd", "downloadURL": "file:///etc/passwd"}
		default:
			w.WriteHeader(http.StatusNotFound)
			answer = map[string]any{"code": 404, "message": "template not found"}
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	r.service = httptest.NewServer(mux)
	t.Cleanup(r.service.Close)
	return r
}

func TestATemplateOfTheRegistry(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for name, c := range map[string]struct {
		url, token string
		code       int
		says       string
	}{
		"the latest":                 {"registry://templates/private/acme/vpc", "pul-job", 0, "version latest, comes from the registry"},
		"a version":                  {"registry://templates/private/acme/vpc@2.1.0", "pul-job", 0, "version 2.1.0"},
		"one that is not there":      {"registry://templates/private/acme/other", "pul-job", 1, "template not found"},
		"a token that is refused":    {"registry://templates/private/acme/vpc", "pul-other", 1, "check that the token"},
		"no token":                   {"registry://templates/private/acme/vpc", "", 1, "access token cannot be used"},
		"a URL that has expired":     {"registry://templates/private/acme/expired", "pul-job", 1, "403"},
		"a URL that is none of ours": {"registry://templates/private/acme/odd", "pul-job", 1, "no URL for its download"},
		"a name that leads away":     {"registry://templates/private/acme/..%2F..@x", "pul-job", 1, "write it as"},
		"a module":                   {"registry://modules/private/acme/vpc", "pul-job", 1, "write it as"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "deployment")
			env := []string{"PULUMI_SERVICE_URL=" + r.service.URL + "/api", "PULUMI_BACKEND_URL=file:///state", "PULUMI_ACCESS_TOKEN=" + c.token, "LONGSHORE_GIT_TOKEN=not-for-the-archive"}
			code, stdout, stderr := call(t, env, "getsource", "template", "--sourceUrl="+c.url, "--workDir="+dir)
			if code != c.code || !strings.Contains(stdout+stderr, c.says) {
				t.Errorf("code %d, %q, %q; want %d, %q", code, stdout, stderr, c.code, c.says)
			}
			for _, secret := range []string{"s1gn3d", "0ld", "pul-job", "pul-other"} {
				if strings.Contains(stdout+stderr, secret) {
					t.Errorf("%q is shown: %s%s", secret, stdout, stderr)
				}
			}
			_, err := os.Stat(filepath.Join(dir, "lib", "readme.md"))
			if (err == nil) != (c.code == 0) {
				t.Errorf("lib/readme.md: %v", err)
			}
		})
	}
}
