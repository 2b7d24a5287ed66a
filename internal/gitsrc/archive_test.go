package gitsrc_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// TestArchives: a template that is an archive, as git makes it, is unpacked.
func TestArchives(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	files := t.TempDir()
	o.git(t, o.work, "checkout", "-q", "main")
	o.git(t, o.work, "rm", "-q", "outside", "up") // links that lead out
	o.git(t, o.work, "commit", "-qm", "Without links that lead out")
	o.git(t, o.work, "archive", "--prefix=repo-main/", "-o", filepath.Join(files, "good.tar.gz"), "main")
	o.git(t, o.work, "archive", "-o", filepath.Join(files, "good.zip"), "main")
	o.git(t, o.work, "archive", "-o", filepath.Join(files, "evil.tgz"), "--format=tar.gz", o.dev)
	write(t, files, "page.zip", "<html>not an archive")
	var broken atomic.Int64
	server := http.FileServer(http.Dir(files))
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/private/"):
			basic("x-access-token", secret, http.StripPrefix("/private", server)).ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/shaky/") && broken.Add(1) == 1:
			w.Header().Set("Content-Length", "100000")
			w.Write([]byte("half"))
		case strings.HasPrefix(r.URL.Path, "/shaky/"):
			http.StripPrefix("/shaky", server).ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/login/"):
			page("<html>Log in").ServeHTTP(w, r)
		default:
			server.ServeHTTP(w, r)
		}
	}))
	for name, tc := range map[string]struct {
		path  string
		token string
		kind  gitsrc.Kind
		text  string
	}{
		"a tar archive of one folder": {path: "/good.tar.gz"},
		"a zip archive":               {path: "/good.zip?download=1"},
		"with a token":                {path: "/private/good.zip", token: secret},
		"a connection that breaks":    {path: "/shaky/good.tar.gz"},
		"with a wrong token":          {path: "/private/good.zip", token: "s3cr3t-wrong", kind: gitsrc.KindUnauthorized, text: "401"},
		"one that is not there":       {path: "/gone.zip", kind: gitsrc.KindNotFound, text: "no such archive (404)"},
		"links that lead out":         {path: "/evil.tgz", kind: gitsrc.KindArchive, text: "leads out of the archive"},
		"something else":              {path: "/page.zip", kind: gitsrc.KindArchive, text: "neither a gzipped tar archive"},
		"a login page":                {path: "/login/good.zip", kind: gitsrc.KindArchive, text: "a web page"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := gitsrc.Template(url + tc.path)
			if err != nil {
				t.Fatal(err)
			}
			r.Dir, r.Auth.Token = filepath.Join(t.TempDir(), "src"), tc.token
			_, lines, err := engine{}.checkout(t, r)
			noSecret(t, "progress", lines)
			if tc.kind != "" {
				wantKind(t, err, tc.kind, tc.text)
				if _, err := os.Lstat(r.Dir); !os.IsNotExist(err) {
					t.Errorf("%s was left behind", r.Dir)
				}
				return
			}
			if err != nil {
				t.Fatalf("Checkout: %v\n%s", err, lines)
			}
			for _, file := range []string{"infra/prod/Pulumi.yaml", "inside/Pulumi.yaml", "README.md"} {
				if _, err := os.Stat(filepath.Join(r.Dir, file)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
