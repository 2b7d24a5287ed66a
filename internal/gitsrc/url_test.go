package gitsrc_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/longshore-run/longshore/internal/gitsrc"
	"golang.org/x/crypto/ssh"
)

func TestCleanURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://github.com/o/r.git":             "https://github.com/o/r.git",
		"https://tok:x@github.com/o/r":           "https://github.com/o/r",
		"HTTPS://me@host:8443/a%20b/r?x=1":       "https://host:8443/a%20b/r?x=1",
		"http://[::1]:80/r":                      "http://[::1]:80/r",
		"git@github.com:o/r.git":                 "git@github.com:o/r.git",
		"host:r":                                 "host:r",
		"ssh://git:pw@host:2222/o/r":             "ssh://git@host:2222/o/r",
		"git+ssh://git@host/~me/r":               "ssh://git@host/~me/r",
		"git://host/r":                           "git://host/r",
		"https://org@dev.azure.com/org/p/_git/r": "https://dev.azure.com/org/p/_git/r",
	} {
		if got, err := gitsrc.CleanURL(raw); err != nil || got != want {
			t.Errorf("CleanURL(%q) = %q, %v, want %q", raw, got, err, want)
		}
	}
}

func TestTokenUserNames(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://github.com/o/r":              "x-access-token",
		"https://gitlab.com/o/r":              "oauth2",
		"https://gitlab.example.com/o/r":      "oauth2",
		"https://bitbucket.org/o/r":           "x-token-auth",
		"https://dev.azure.com/o/p/_git/r":    "git",
		"https://o.visualstudio.com/p/_git/r": "git",
		"https://git.example.com/o/r":         "x-access-token",
		"https://me@git.example.com/o/r":      "x-access-token",
	} {
		if user, password := gitsrc.CredentialsFor(url, gitsrc.Auth{Token: "t"}); user != want || password != "t" {
			t.Errorf("%s: the token goes with user %q and password %q, want %q", url, user, password, want)
		}
	}
	if user, password := gitsrc.CredentialsFor("https://me:pw@host/r", gitsrc.Auth{}); user != "me" || password != "pw" {
		t.Errorf("credentials of the URL = %q, %q", user, password)
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]gitsrc.Request{
		"https://github.com/o/r":                            {URL: "https://github.com/o/r"},
		"https://github.com/o/r.git":                        {URL: "https://github.com/o/r.git"},
		"https://github.com/o/r/tree/main":                  {URL: "https://github.com/o/r", Branch: "main"},
		"https://github.com/o/r/tree/main/aws/static":       {URL: "https://github.com/o/r", Branch: "main", RepoDir: "aws/static"},
		"https://host/o/r.git/tree/feature%2Fx/a%20b/":      {URL: "https://host/o/r.git", Branch: "feature/x", RepoDir: "a b"},
		"https://gitlab.com/g/sub/r/-/tree/v1/x":            {URL: "https://gitlab.com/g/sub/r", Branch: "v1", RepoDir: "x"},
		"https://github.com/o/r/aws/static":                 {URL: "https://github.com/o/r", RepoDir: "aws/static"},
		"https://host/g/r.git/aws":                          {URL: "https://host/g/r.git", RepoDir: "aws"},
		"https://gitlab.com/g/sub/r":                        {URL: "https://gitlab.com/g/sub/r"},
		"https://host/t/x.tar.gz?a=b":                       {URL: "https://host/t/x.tar.gz?a=b", Archive: true},
		"https://github.com/o/r/tree/main/x.zip":            {URL: "https://github.com/o/r", Branch: "main", RepoDir: "x.zip"},
		"git@github.com:o/r.git":                            {URL: "git@github.com:o/r.git"},
		"https://me:pw@host/o/r/tree/main/x":                {URL: "https://me:pw@host/o/r", Branch: "main", RepoDir: "x"},
		"https://host/o/r/tree/" + strings.Repeat("ab", 20): {URL: "https://host/o/r", Commit: strings.Repeat("ab", 20)},
	} {
		got, err := gitsrc.Template(raw)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Template(%q): %v\n%s", raw, err, diff)
		}
	}
	for raw, text := range map[string]string{
		"registry://templates/x":                 "registry://",
		"https://github.com/o/r/tree/main/../..": "leaves the repository",
		"https://host":                           "no repository",
	} {
		if _, err := gitsrc.Template(raw); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("Template(%q): %v, want %q in the error", raw, err, text)
		}
	}
}

// TestPublicHostKeys: the keys that are built in have the fingerprints that the
// four hosts publish on the pages named beside the keys.
func TestPublicHostKeys(t *testing.T) {
	t.Parallel()
	want := []string{
		"bitbucket.org SHA256:46OSHA1Rmj8E8ERTC6xkNcmGOw9oFxYr0WF6zWW8l1E",
		"bitbucket.org SHA256:FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
		"bitbucket.org SHA256:ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
		"github.com SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
		"github.com SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
		"github.com SHA256:uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
		"gitlab.com SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
		"gitlab.com SHA256:ROQFvPThGrW4RuWLoL9tq9I9zJ42fK4XywyRtbOz/EQ",
		"gitlab.com SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
		"ssh.dev.azure.com SHA256:ohD8VZEXGWo6Ez8GSEJQ9WpafgLFsOfLOtGGQCQo6Og",
	}
	var got []string
	for rest := []byte(gitsrc.PublicHostKeys); ; {
		_, hosts, key, _, after, err := ssh.ParseKnownHosts(rest)
		if err != nil {
			break
		}
		got, rest = append(got, hosts[0]+" "+ssh.FingerprintSHA256(key)), after
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
