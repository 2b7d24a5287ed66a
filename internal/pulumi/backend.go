package pulumi

import (
	"encoding/json"
	"net/url"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// backendURL finds out where pulumi will keep state, in pulumi's own order: the
// environment, the project file, the login. "" means that nothing says, which
// pulumi reads as its own service.
func backendURL(env []string, dir string, read func(string) ([]byte, error)) string {
	if url := lookup(env, "PULUMI_BACKEND_URL"); url != "" {
		return url
	}
	if url := projectBackend(dir, read); url != "" {
		return url
	}
	home := lookup(env, "PULUMI_HOME")
	if home == "" {
		home = filepath.Join(lookup(env, "HOME"), ".pulumi")
	}
	content, err := read(filepath.Join(home, "credentials.json"))
	if err != nil {
		return ""
	}
	var login struct {
		Current string `json:"current"`
	}
	if json.Unmarshal(content, &login) != nil {
		return ""
	}
	return login.Current
}

// projectBackend reads backend.url of the project file, which pulumi looks for
// in the directory and then upwards.
func projectBackend(dir string, read func(string) ([]byte, error)) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	for {
		for _, name := range []string{"Pulumi.yaml", "Pulumi.yml", "Pulumi.json"} {
			content, err := read(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			var project struct {
				Backend struct {
					URL string `yaml:"url"`
				} `yaml:"backend"`
			}
			if yaml.Unmarshal(content, &project) != nil {
				return "" // pulumi will say what is wrong with it
			}
			return project.Backend.URL
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// isService reports whether a backend is a service, which has organizations and
// permissions, and not a store of files.
func isService(backend string) bool {
	return strings.HasPrefix(backend, "https://") || strings.HasPrefix(backend, "http://")
}

// withoutUser is a URL as it may be shown: backends such as s3:// take keys in
// the query, others in the user part.
func withoutUser(backend string) string {
	u, err := url.Parse(backend)
	if err != nil {
		return "this backend"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
