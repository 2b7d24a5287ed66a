package process

import (
	"maps"
	"slices"
	"strings"
)

// allowList names the variables of the agent's environment that jobs may see:
// what programs need to find their files, their language and their way out to
// the network. Everything else, above all the agent's own tokens, stays out.
var allowList = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG", "TZ",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

// allowed returns the entries of env that are on the allow-list.
func allowed(env []string) []string {
	var kept []string
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if slices.Contains(allowList, name) || strings.HasPrefix(name, "LC_") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// jobEnvironment is the whole environment of an executor. What the spec says
// wins over the agent's.
func jobEnvironment(agent []string, spec map[string]string, dir string) []string {
	env := make(map[string]string, len(agent)+len(spec)+1)
	for _, entry := range agent {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	maps.Copy(env, spec)
	env[markVariable] = dir
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}
