package gitsrc_test

import (
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// FuzzRepositoryURL: what is stored and shown of a repository's URL holds no
// password, means the same repository, and is no option of git's.
func FuzzRepositoryURL(f *testing.F) {
	for _, raw := range []string{
		"https://user:pass@host/owner/repo.git", "https://host:8443/a/b?x=%20y", "ssh://git@host:22/a", "git@host:a/b.git", "[::1]:repo",
		"git://[fe80::1]:9418/x", "http://h/%2e%2e/x", "-oProxyCommand=x", "ssh://-oX/y", "file:///etc", "git+ssh://u:p@h/x#f", "a b:c", "https://h/\x00",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		clean, err := gitsrc.CleanURL(raw)
		_, password := gitsrc.CredentialsFor(raw, gitsrc.Auth{})
		if err != nil {
			if len(password) > 3 && strings.Contains(err.Error(), password) {
				t.Errorf("the error of %q shows its password: %v", raw, err)
			}
			return
		}
		if strings.HasPrefix(clean, "-") || strings.ContainsAny(clean, "\x00\n\r") {
			t.Errorf("%q becomes %q", raw, clean)
		}
		again, err := gitsrc.CleanURL(clean)
		if err != nil || again != clean {
			t.Errorf("%q becomes %q, and that %q, %v", raw, clean, again, err)
		}
		if _, left := gitsrc.CredentialsFor(clean, gitsrc.Auth{}); left != "" {
			t.Errorf("%q becomes %q, which has a password", raw, clean)
		}
	})
}
