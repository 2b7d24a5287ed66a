package gitsrc_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

const secret = "s3cr3t/tok+en:of@mine"

// wantKind checks an error's kind, that it holds a text, and no secret.
func wantKind(t *testing.T, err error, kind gitsrc.Kind, texts ...string) {
	t.Helper()
	var e *gitsrc.Error
	if !errors.As(err, &e) {
		t.Errorf("error = %v, want one of kind %s", err, kind)
		return
	}
	if e.Kind != kind {
		t.Errorf("error %v is of kind %s, want %s", err, e.Kind, kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error = %v\nwant %q in it", err, text)
		}
	}
	noSecret(t, "error", err.Error())
}

func noSecret(t *testing.T, where, text string) {
	t.Helper()
	for _, s := range []string{secret, "s3cr3t", base64.StdEncoding.EncodeToString([]byte("x-access-token:" + secret)), "PRIVATE KEY"} {
		if strings.Contains(text, s) {
			t.Errorf("%s holds the secret %q: %s", where, s, text)
		}
	}
}

// noSecretBelow reads every file below dir.
func noSecretBelow(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("s3cr3t")) || bytes.Contains(b, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a secret", path)
		}
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("looked at %d files: %v", files, err)
	}
}

func TestHTTPAuth(t *testing.T) { eachEngine(t, testHTTPAuth) }

func testHTTPAuth(t *testing.T, on engine) {
	o := newOrigin(t)
	withUser := func(url, user string) string { return strings.Replace(url, "://", "://"+user+"@", 1) }
	escaped := "s3cr3t%2Ftok+en%3Aof%40mine"
	asBasic := func(user string) http.Handler { return basic(user, secret, o.backend()) }
	for name, tc := range map[string]struct {
		server http.Handler
		user   string // in the URL
		auth   gitsrc.Auth
		kind   gitsrc.Kind // of the error; empty for none
		text   string
	}{
		"a token, with the usual user name":     {server: asBasic("x-access-token"), auth: gitsrc.Auth{Token: secret}},
		"a token with a user name of its own":   {server: asBasic("me"), auth: gitsrc.Auth{Token: secret, Username: "me"}},
		"user name and password":                {server: asBasic("me"), auth: gitsrc.Auth{Username: "me", Password: secret}},
		"in the URL":                            {server: asBasic("me"), user: "me:" + escaped},
		"what is set wins over the URL":         {server: asBasic("me"), user: "me:wrong", auth: gitsrc.Auth{Username: "me", Password: secret}},
		"a bearer token, when that is wanted":   {server: bearer(secret, o.backend()), auth: gitsrc.Auth{Token: secret}},
		"a wrong token":                         {server: asBasic("x-access-token"), auth: gitsrc.Auth{Token: "s3cr3t-wrong"}, kind: gitsrc.KindUnauthorized, text: "Invalid username or password [secret]"},
		"a wrong password in the URL":           {server: asBasic("me"), user: "me:s3cr3t-wrong", kind: gitsrc.KindUnauthorized, text: "refused the credentials (401)"},
		"a wrong bearer token":                  {server: bearer(secret, o.backend()), auth: gitsrc.Auth{Token: "s3cr3t-wrong"}, kind: gitsrc.KindUnauthorized, text: "401"},
		"no credentials":                        {server: asBasic("me"), kind: gitsrc.KindUnauthorized, text: "wants credentials and none were given"},
		"an SSH key is of no use here":          {server: asBasic("me"), auth: gitsrc.Auth{SSHKey: []byte("x")}, kind: gitsrc.KindUnauthorized, text: "none were given"},
		"credentials that may not read it":      {server: asBasic("me"), auth: gitsrc.Auth{Username: "you", Password: secret}, kind: gitsrc.KindForbidden, text: "wrong user you"},
		"credentials where none are needed":     {server: o.backend(), auth: gitsrc.Auth{Token: secret}},
		"a server whose answer quotes a secret": {server: status(http.StatusForbidden, "bad "+secret), auth: gitsrc.Auth{Token: secret}, kind: gitsrc.KindForbidden, text: "bad [secret]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, tc.server) + "/repo.git"
			if tc.user != "" {
				url = withUser(url, tc.user)
			}
			dir := filepath.Join(t.TempDir(), "src")
			_, lines, err := on.checkout(t, gitsrc.Request{URL: url, Branch: "main", Dir: dir, Auth: tc.auth})
			noSecret(t, "progress", lines)
			if tc.kind != "" {
				wantKind(t, err, tc.kind, tc.text)
				return
			}
			if err != nil {
				t.Fatalf("Checkout: %v", err)
			}
			noSecretBelow(t, dir)
		})
	}
}

func status(code int, text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) })
}

// TestRedirectsCarryNoCredentials: to another host they do not go, not even to
// a port of the same one; to where they are for, they do.
func TestRedirectsCarryNoCredentials(t *testing.T) { eachEngine(t, testRedirectsCarryNoCredentials) }

func testRedirectsCarryNoCredentials(t *testing.T, on engine) {
	o := newOrigin(t)
	var leaked lockedBuffer
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			leaked.Write([]byte(a))
		}
		o.backend().ServeHTTP(w, r)
	}))
	t.Cleanup(other.Close)
	front := serve(t, basic("x-access-token", secret, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/away/"):
			http.Redirect(w, r, other.URL+strings.TrimPrefix(r.URL.Path, "/away")+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
		case strings.HasPrefix(r.URL.Path, "/old/"):
			http.Redirect(w, r, strings.TrimPrefix(r.URL.Path, "/old")+"?"+r.URL.RawQuery, http.StatusFound)
		default:
			o.backend().ServeHTTP(w, r)
		}
	})))
	for _, path := range []string{"/away/repo.git", "/old/repo.git"} {
		got, _, err := on.checkout(t, gitsrc.Request{URL: front + path, Branch: "main", Auth: gitsrc.Auth{Token: secret}})
		if err != nil || got.Commit != o.main {
			t.Errorf("%s: Checkout() = %+v, %v", path, got, err)
		}
	}
	if s := leaked.String(); s != "" {
		t.Errorf("another host was given credentials: %s", s)
	}
	// When the other place wants some, the message says why it gets none.
	private := serve(t, basic("x-access-token", secret, o.backend()))
	front = serve(t, http.RedirectHandler(private+"/repo.git/info/refs?service=git-upload-pack", http.StatusFound))
	_, _, err := on.checkout(t, gitsrc.Request{URL: front + "/repo.git", Branch: "main", Auth: gitsrc.Auth{Token: secret}})
	wantKind(t, err, gitsrc.KindUnauthorized, "redirects to "+strings.TrimPrefix(private, "http://"))
}

func TestSSH(t *testing.T) { eachEngine(t, testSSH) }

func testSSH(t *testing.T, on engine) {
	o := newOrigin(t)
	dir := t.TempDir()
	var authorized string
	keys := map[string][]byte{}
	for name, args := range map[string][]string{
		"ed25519": {"ed25519", ""}, "rsa": {"rsa", ""}, "ecdsa": {"ecdsa", ""},
		"locked": {"ed25519", "open s3cr3t"}, "lockedrsa": {"rsa", "open s3cr3t"},
	} {
		more := []string{}
		if name == "lockedrsa" {
			more = append(more, "-m", "PEM")
		}
		private, public := keygen(t, filepath.Join(dir, name), args[0], args[1], more...)
		keys[name], authorized = private, authorized+public
	}
	foreign, _ := keygen(t, filepath.Join(dir, "foreign"), "ed25519", "")
	server := newSSHServer(t, o, authorized)
	noNewline := bytes.TrimSpace(keys["ed25519"])
	for name, tc := range map[string]struct {
		auth gitsrc.Auth
		path string
		kind gitsrc.Kind
		text string
	}{
		"ed25519":                      {auth: gitsrc.Auth{SSHKey: keys["ed25519"]}},
		"RSA, signed with SHA-2":       {auth: gitsrc.Auth{SSHKey: keys["rsa"]}},
		"ECDSA":                        {auth: gitsrc.Auth{SSHKey: keys["ecdsa"]}},
		"with a passphrase":            {auth: gitsrc.Auth{SSHKey: keys["locked"], SSHPassphrase: "open s3cr3t"}},
		"PEM with a passphrase":        {auth: gitsrc.Auth{SSHKey: keys["lockedrsa"], SSHPassphrase: "open s3cr3t"}},
		"a passphrase without need":    {auth: gitsrc.Auth{SSHKey: keys["rsa"], SSHPassphrase: "open s3cr3t"}},
		"without its last newline":     {auth: gitsrc.Auth{SSHKey: noNewline}},
		"with newlines written as \\n": {auth: gitsrc.Auth{SSHKey: bytes.ReplaceAll(noNewline, []byte("\n"), []byte(`\n`))}},
		"with a wrong passphrase":      {auth: gitsrc.Auth{SSHKey: keys["locked"], SSHPassphrase: "wrong s3cr3t"}, kind: gitsrc.KindKeyUnreadable, text: "does not open"},
		"without its passphrase":       {auth: gitsrc.Auth{SSHKey: keys["locked"]}, kind: gitsrc.KindKeyUnreadable, text: "no passphrase was given"},
		"no key at all":                {kind: gitsrc.KindKeyUnreadable, text: "none was given"},
		"only a token":                 {auth: gitsrc.Auth{Token: secret}, kind: gitsrc.KindKeyUnreadable, text: "HTTPS only"},
		"not a key":                    {auth: gitsrc.Auth{SSHKey: []byte("ssh-ed25519 AAAA")}, kind: gitsrc.KindKeyUnreadable, text: "cannot be read"},
		"a key that nobody knows":      {auth: gitsrc.Auth{SSHKey: foreign}, kind: gitsrc.KindKeyRefused, text: "Permission denied"},
		"a repository that is missing": {auth: gitsrc.Auth{SSHKey: keys["ed25519"]}, path: "/no/such.git", kind: gitsrc.KindNotFound, text: "does not appear to be a git repository"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "src")
			url := server.url
			if tc.path != "" {
				url = strings.Replace(url, o.dir, tc.path, 1)
			}
			got, lines, err := on.checkout(t, gitsrc.Request{URL: url, Branch: "main", Dir: dir, Auth: tc.auth, KnownHosts: []string{server.knownHosts}})
			noSecret(t, "progress", lines)
			if tc.kind != "" {
				wantKind(t, err, tc.kind, tc.text)
				return
			}
			if err != nil || got.Commit != o.main {
				t.Fatalf("Checkout() = %+v, %v\nsshd: %s", got, err, server.log.String())
			}
			noSecretBelow(t, dir)
			if remote := o.git(t, dir, "remote", "get-url", "origin"); remote != url {
				t.Errorf("origin = %s, want %s", remote, url)
			}
		})
	}
}

// TestHostKeys: an unknown host is refused with the line to add, and that line
// is right; another key than the known one is refused.
func TestHostKeys(t *testing.T) { eachEngine(t, testHostKeys) }

func testHostKeys(t *testing.T, on engine) {
	o := newOrigin(t)
	dir := t.TempDir()
	private, public := keygen(t, filepath.Join(dir, "key"), "ed25519", "")
	server := newSSHServer(t, o, public)
	known := filepath.Join(dir, "known_hosts")
	request := gitsrc.Request{URL: server.url, Branch: "main", Auth: gitsrc.Auth{SSHKey: private}, KnownHosts: []string{known}}
	_, _, err := on.checkout(t, request)
	wantKind(t, err, gitsrc.KindHostKeyUnknown, "SHA256:", known)
	if err == nil {
		return
	}
	line := err.Error()[strings.Index(err.Error(), "[127.0.0.1]:"):]
	write(t, dir, "known_hosts", line+"\n")
	if _, _, err := on.checkout(t, request); err != nil {
		t.Errorf("with the line that the error names: %v", err)
	}
	host, _, _ := strings.Cut(line, " ")
	write(t, dir, "known_hosts", host+" "+public)
	_, _, err = on.checkout(t, request)
	wantKind(t, err, gitsrc.KindHostKeyChanged, known+":1")
	write(t, dir, "known_hosts", "not a line\n")
	_, _, err = on.checkout(t, request)
	wantKind(t, err, gitsrc.KindHostKeyUnknown, "cannot be read")
}

// TestHostKeysAreLearned: the first key of a host is trusted, noted and said; then
// another is refused as ever.
func TestHostKeysAreLearned(t *testing.T) { eachEngine(t, testHostKeysAreLearned) }

func testHostKeysAreLearned(t *testing.T, on engine) {
	o := newOrigin(t)
	dir := t.TempDir()
	private, public := keygen(t, filepath.Join(dir, "key"), "ed25519", "")
	server := newSSHServer(t, o, public)
	learned := filepath.Join(dir, "kept", "known_hosts")
	request := gitsrc.Request{URL: server.url, Branch: "main", Auth: gitsrc.Auth{SSHKey: private}, LearnHosts: learned}
	_, lines, err := on.checkout(t, request)
	if err != nil || !strings.Contains(lines, "is trusted from now on") || !strings.Contains(lines, "SHA256:") {
		t.Fatalf("Checkout: %v\n%s", err, lines)
	}
	want, _ := os.ReadFile(server.knownHosts)
	got, err := os.ReadFile(learned)
	if fields := strings.Fields(string(want)); err != nil || strings.TrimSpace(string(got)) != strings.Join(fields[:3], " ") {
		t.Errorf("learned %q, %v, want %q", got, err, want)
	}
	if _, lines, err := on.checkout(t, request); err != nil || strings.Contains(lines, "trusted from now on") {
		t.Errorf("once more: %v\n%s", err, lines)
	}
	host, _, _ := strings.Cut(string(got), " ")
	write(t, filepath.Dir(learned), "known_hosts", host+" "+public)
	_, _, err = on.checkout(t, request)
	wantKind(t, err, gitsrc.KindHostKeyChanged, learned+":1")
}
