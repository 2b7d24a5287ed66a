package gitsrc

import (
	"net"
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

// location is a repository URL taken apart. Credentials that stood in the URL
// are in user and password only: String never shows them.
type location struct {
	scheme         string // https, http, ssh or git
	user, password string
	host, port     string
	path           string // escaped for http, plain for ssh and git
	scp            bool   // written as user@host:path
}

var scpForm = regexp.MustCompile(`^(?:([^@/:\s]+)@)?([^-@/:\s\[\]][^@/:\s\[\]]*|\[[0-9a-fA-F:.]+\]):([^:\s].*)$`)

// parseLocation reads a repository URL. Its errors never quote the URL, which
// may hold a password.
func parseLocation(raw string) (location, error) {
	switch {
	case raw == "":
		return location{}, problem(KindRequest, "the repository URL is empty", "Set sourceContext.git.repoURL.")
	case strings.ContainsFunc(raw, unicode.IsControl), strings.HasPrefix(raw, "-"):
		return location{}, problem(KindRequest, "the repository URL holds a character that no URL has", "Check sourceContext.git.repoURL.")
	}
	if !strings.Contains(raw, "://") {
		return parseSCP(raw)
	}
	u, err := url.Parse(raw)
	local := err == nil && u.Scheme == "file" // refused below, in its own words
	if err != nil || !local && (u.Hostname() == "" || strings.HasPrefix(u.Host, "-")) {
		return location{}, problem(KindRequest, "the repository URL cannot be read",
			"Write it as https://host/owner/repo.git or ssh://git@host/owner/repo.git, with special characters in a user name or password percent-encoded.")
	}
	l := location{scheme: strings.ToLower(u.Scheme), host: u.Hostname(), port: u.Port(), path: u.Path}
	l.user = u.User.Username()
	l.password, _ = u.User.Password()
	switch l.scheme {
	case "https", "http":
		l.path = u.EscapedPath()
		if u.RawQuery != "" {
			l.path += "?" + u.RawQuery
		}
	case "ssh", "git":
	case "git+ssh", "ssh+git":
		l.scheme = "ssh"
	case "registry":
		return location{}, problem(KindRequest, "registry:// is for templates that the service keeps", "Name the repository by its https:// URL.")
	default:
		return location{}, problem(KindRequest, "repository URLs that begin with "+l.scheme+":// are not supported", "Use https://, ssh:// or git@host:path.")
	}
	if strings.Trim(l.path, "/") == "" {
		return location{}, problem(KindRequest, "the repository URL names a host but no repository", "Write it as https://host/owner/repo.git.")
	}
	return l, nil
}

func parseSCP(raw string) (location, error) {
	m := scpForm.FindStringSubmatch(raw)
	if m == nil {
		return location{}, problem(KindRequest, "the repository URL is neither a URL nor of the form user@host:path", "Local paths are not supported. Write it as https://host/owner/repo.git or git@host:owner/repo.git.")
	}
	return location{scheme: "ssh", user: m[1], host: strings.Trim(m[2], "[]"), path: m[3], scp: true}, nil
}

// String returns the URL without credentials: what may be stored and shown. The
// user name of an SSH URL ("git") is part of its address and stays.
func (l location) String() string {
	host := l.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if l.scp { // nothing is escaped in this form
		if l.user != "" {
			host = l.user + "@" + host
		}
		return host + ":" + l.path
	}
	if l.scheme == "ssh" && l.user != "" {
		host = url.User(l.user).String() + "@" + host
	}
	if l.port != "" {
		host += ":" + l.port
	}
	path := l.path
	if !l.web() {
		path = (&url.URL{Path: path}).EscapedPath()
	}
	return l.scheme + "://" + host + path
}

func (l location) web() bool { return l.scheme == "https" || l.scheme == "http" }

// address returns host:port for dialling.
func (l location) address() string {
	port := l.port
	if port == "" {
		port = map[string]string{"ssh": "22", "git": "9418", "http": "80", "https": "443"}[l.scheme]
	}
	return net.JoinHostPort(l.host, port)
}

// tokenUser returns the user name that a host wants beside an access token:
// the documented convention of each of the large hosts, and the same for
// servers of their kind that carry its name.
func (l location) tokenUser() string {
	host := strings.ToLower(l.host)
	switch {
	case strings.Contains(host, "gitlab"):
		return "oauth2"
	case strings.Contains(host, "bitbucket"):
		return "x-token-auth"
	case host == "dev.azure.com", strings.HasSuffix(host, ".visualstudio.com"):
		return "git" // any name does
	}
	return "x-access-token" // GitHub's; Gitea and most others take any
}

// credentials settles which credentials go to l: those of the request, else
// those of the URL.
func (l location) credentials(a Auth) Auth {
	if l.web() && (a.Token != "" || a.Password != "") {
		if a.Token != "" {
			a.Password = a.Token
			if a.Username == "" {
				a.Username = l.tokenUser()
			}
		}
		return a
	}
	if !l.web() && (len(a.SSHKey) > 0 || a.Password != "") {
		return a
	}
	a.Username, a.Password = l.user, l.password
	return a
}
