package gitsrc

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

var fullHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Template reads the URL of a deployment's template source and returns the
// request that checks it out. Understood are
//
//	https://host/owner/repo[.git]
//	https://host/owner/repo[.git]/tree/<ref>[/<path>]      (and GitLab's /-/tree/)
//	https://host/owner/repo.git/<path>
//	https://github.com/owner/repo/<path>
//	https://host/<path>.tar.gz                             (and .tgz, .zip)
//
// where a ref is one path segment: a branch whose name holds a slash must be
// written with %2F. Only URL, Archive, Branch, Commit and RepoDir of the request are
// set. registry:// is for the service to resolve.
func Template(sourceURL string) (Request, error) {
	l, err := parseLocation(sourceURL)
	if err != nil {
		return Request{}, err
	}
	if !l.web() {
		return Request{URL: sourceURL}, nil
	}
	u, err := url.Parse(sourceURL)
	if err != nil {
		return Request{}, problem(KindRequest, "the template URL cannot be read", "Write it as https://host/owner/repo/tree/main/folder.")
	}
	segments := strings.Split(strings.Trim(u.EscapedPath(), "/"), "/")
	if isArchive(segments) {
		return Request{URL: sourceURL, Archive: true}, nil
	}
	repo, ref, dir := splitTemplate(strings.EqualFold(u.Hostname(), "github.com"), segments)
	r := Request{}
	if ref, err = url.PathUnescape(ref); err != nil {
		return Request{}, problem(KindRequest, "the ref in the template URL cannot be read", "Percent-encode special characters.")
	}
	if fullHash.MatchString(ref) {
		r.Commit = ref
	} else {
		r.Branch = ref
	}
	if r.RepoDir, err = url.PathUnescape(strings.Join(dir, "/")); err != nil {
		return Request{}, problem(KindRequest, "the path in the template URL cannot be read", "Percent-encode special characters.")
	}
	if _, err := cleanRepoDir(r.RepoDir); err != nil {
		return Request{}, err
	}
	root := *u
	root.RawPath, root.RawQuery, root.Fragment = "", "", ""
	r.URL = root.ResolveReference(&url.URL{Path: "/"}).String() + strings.Join(repo, "/")
	if u.User != nil { // ResolveReference drops it
		withUser := &url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}
		r.URL = withUser.String() + "/" + strings.Join(repo, "/")
	}
	return r, nil
}

// splitTemplate finds where the repository ends and what follows it.
func splitTemplate(github bool, segments []string) (repo []string, ref string, dir []string) {
	if i := slices.Index(segments, "tree"); i >= 2 && i+1 < len(segments) {
		end := i
		if segments[i-1] == "-" {
			end--
		}
		return segments[:end], segments[i+1], segments[i+2:]
	}
	if i := slices.IndexFunc(segments, func(s string) bool { return strings.HasSuffix(s, ".git") }); i >= 0 {
		return segments[:i+1], "", segments[i+1:]
	}
	if github && len(segments) > 2 {
		return segments[:2], "", segments[2:]
	}
	return segments, "", nil
}
