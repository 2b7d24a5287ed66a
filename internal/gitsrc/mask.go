package gitsrc

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// shortestSecret is the length below which masking would only riddle messages
// with holes.
const shortestSecret = 4

// newMask returns a function that hides every form in which the credentials
// could turn up in a message.
func newMask(at location, cred Auth) func(string) string {
	secrets := []string{at.password, cred.Token, cred.Password, cred.SSHPassphrase, string(cred.SSHKey)}
	if at.web() && at.password == "" && len(at.user) >= 20 {
		secrets = append(secrets, at.user) // https://TOKEN@host/...
	}
	if cred.Password != "" {
		pair := cred.Username + ":" + cred.Password
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(pair)), base64.RawURLEncoding.EncodeToString([]byte(pair)))
	}
	for _, s := range slices.Clone(secrets) {
		secrets = append(secrets, url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:])
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < shortestSecret })
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range slices.Compact(secrets) {
		pairs = append(pairs, s, "[secret]")
	}
	return strings.NewReplacer(pairs...).Replace
}
