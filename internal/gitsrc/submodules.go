package gitsrc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/config"
)

// deepest is how many repositories may hold one another as submodules.
const deepest = 8

// submodules checks out the submodules among entries, and theirs. Each is a
// repository of its own in its folder.
func (c *checkout) submodules(ctx context.Context, entries []treeEntry) error {
	entries = slices.DeleteFunc(slices.Clone(entries), func(e treeEntry) bool { return e.mode != modeSubmodule })
	if len(entries) == 0 {
		return nil
	}
	if c.req.NoSubmodules {
		c.progress.line("note: the folders of %d submodules stay empty, as source.submodules is false", len(entries))
		return nil
	}
	if c.depth == deepest {
		return problem(KindRequest, fmt.Sprintf("submodules are nested more than %d deep", deepest), "source.submodules: false leaves them out.")
	}
	modules, err := c.readModules()
	if err != nil {
		return err
	}
	for _, e := range entries {
		module := modules[e.path]
		if module == nil {
			c.progress.line("note: .gitmodules does not say where submodule %s is to be had; its folder stays empty", e.path)
			continue
		}
		if err := c.submodule(ctx, e, module); err != nil {
			return err
		}
	}
	return nil
}

// readModules reads .gitmodules, by path.
func (c *checkout) readModules() (map[string]*config.Submodule, error) {
	text, err := readOwn(c.dir, ".gitmodules")
	if err != nil {
		return nil, err
	}
	file := config.NewModules()
	if err := file.Unmarshal(text); err != nil {
		return nil, problem(KindRequest, "the repository's .gitmodules cannot be read: "+err.Error(), "Correct it, or leave submodules out with source.submodules: false.")
	}
	byPath := map[string]*config.Submodule{}
	for _, m := range file.Submodules {
		byPath[m.Path] = m
	}
	return byPath, nil
}

// readOwn reads a file of the checkout's top folder, which is no link. What is
// not there is empty.
func readOwn(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, mostText))
}

func (c *checkout) submodule(ctx context.Context, e treeEntry, module *config.Submodule) error {
	below := e.path
	if c.module != "" {
		below = c.module + "/" + below
	}
	fail := func(err *Error) error {
		if err.Tried == "" {
			err.Tried = c.mask("get submodule " + below)
		}
		err.Check = strings.TrimSpace(err.Check + " source.submodules: false leaves submodules out.")
		return err
	}
	dir, err := c.plainPath(e.path)
	if err != nil {
		return err
	}
	sub, err := c.forSubmodule(module.URL)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return fail(e)
		}
		return err
	}
	sub.module, sub.progress.prefix = below, "submodule "+below+": "
	sub.req.Dir, sub.req.Commit = dir, e.hash.String()
	if _, err := sub.run(ctx); err != nil {
		explained := sub.explain(ctx, err)
		if explained.Kind == KindCancelled || strings.Contains(explained.Check, "source.submodules") {
			return explained
		}
		return fail(explained)
	}
	return c.remember(module, sub.at.String())
}

// plainPath returns where a file of the commit is, and refuses a path on which
// there is a link: no commit that git made has one.
func (c *checkout) plainPath(name string) (string, error) {
	hostile := problem(KindPath, fmt.Sprintf("the repository has a path that is not safe: %q", name), "")
	for _, part := range strings.Split(name, "/") {
		if strings.EqualFold(part, ".git") {
			return "", hostile
		}
	}
	if !filepath.IsLocal(name) {
		return "", hostile
	}
	root, err := filepath.EvalSymlinks(c.dir)
	if err != nil {
		return "", err
	}
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		if info, err := os.Lstat(filepath.Join(root, dir)); err == nil && !info.IsDir() {
			return "", hostile
		}
	}
	return filepath.Join(c.dir, filepath.FromSlash(name)), nil
}

// remember tells git, and whoever uses it later in the job, that the submodule
// is there.
func (c *checkout) remember(module *config.Submodule, url string) error {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", "").Replace
	file, err := os.OpenFile(filepath.Join(c.dir, ".git", "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "[submodule \"%s\"]\n\tactive = true\n\turl = \"%s\"\n", quote(module.Name), quote(url))
	return errors.Join(err, file.Close())
}

// forSubmodule prepares the checkout of a repository that this one names.
func (c *checkout) forSubmodule(raw string) (*checkout, error) {
	if strings.HasPrefix(raw, "./") || strings.HasPrefix(raw, "../") {
		raw = c.at.relative(raw)
	}
	at, err := parseLocation(raw)
	if err != nil {
		return nil, err
	}
	auth := c.req.Auth
	if auth.Token == "" && auth.Password == "" && len(auth.SSHKey) == 0 { // those of the URL, if any
		auth = Auth{Username: c.cred.Username, Password: c.cred.Password}
	}
	switch {
	case at.sameServer(c.at):
	case at.scheme == "ssh" && c.at.web() && strings.EqualFold(at.host, c.at.host) && c.cred.Password != "":
		// Written for people with a key, while what was given to us is a token.
		at = location{scheme: c.at.scheme, host: c.at.host, port: c.at.port, path: "/" + strings.TrimPrefix(at.path, "/")}
	default:
		auth = Auth{} // credentials are for one host
	}
	r := c.req
	r.URL, r.Auth = at.withCredentials(), auth
	r.Branch, r.RepoDir, r.Full = "", "", true
	sub, err := newCheckout(r, c.stall, c.firstWait)
	if err != nil {
		return nil, err
	}
	inner := sub.mask
	sub.mask = func(s string) string { return c.mask(inner(s)) }
	sub.progress.mask = sub.mask
	sub.depth = c.depth + 1
	return sub, nil
}

// sameServer reports whether credentials for other may go to l, too.
func (l location) sameServer(other location) bool {
	return l.scheme == other.scheme && strings.EqualFold(l.host, other.host) && l.address() == other.address() ||
		l.scheme == "https" && other.scheme == "http" && l.port == "" && other.port == "" && strings.EqualFold(l.host, other.host)
}

// relative resolves a URL that begins with ./ or ../, as git does.
func (l location) relative(to string) string {
	base, _, _ := strings.Cut(l.path, "?")
	parts := strings.Split(strings.Trim(base, "/"), "/")
	for {
		if rest, ok := strings.CutPrefix(to, "../"); ok {
			to, parts = rest, parts[:max(len(parts)-1, 0)]
		} else if rest, ok := strings.CutPrefix(to, "./"); ok {
			to = rest
		} else {
			break
		}
	}
	path := strings.Join(append(parts, to), "/")
	if !l.scp || strings.HasPrefix(base, "/") {
		path = "/" + path
	}
	l.path = path
	return l.String()
}

// withCredentials returns the URL with the credentials that it came with.
func (l location) withCredentials() string {
	if !l.web() || l.user == "" && l.password == "" {
		return l.String()
	}
	user := url.UserPassword(l.user, l.password)
	if l.password == "" {
		user = url.User(l.user)
	}
	return strings.Replace(l.String(), "://", "://"+user.String()+"@", 1)
}
