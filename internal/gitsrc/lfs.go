package gitsrc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing/format/gitattributes"

	"github.com/longshore-run/longshore/internal/stall"
)

const (
	lfsType = "application/vnd.git-lfs+json"
	// lfsBatch is how many objects are asked for at once.
	lfsBatch = 100
	// mostPointer is the size that no pointer file exceeds.
	mostPointer = 1024
)

// pointer is a file of the work tree that stands for an object of Git LFS.
type pointer struct {
	path string // below the checkout
	OID  string `json:"oid"`
	Size int64  `json:"size"`
}

var pointerForm = regexp.MustCompile(`\Aversion https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n`)

// lfs puts the contents of large files in the place of the pointer files that
// the commit has for them. None is left behind: what cannot be had is an error.
func (c *checkout) lfs(ctx context.Context, meta *git.Repository, entries []treeEntry) error {
	attributes, err := c.readAttributes(entries)
	if err != nil || attributes == nil {
		return err
	}
	pointers, err := c.pointers(entries, attributes)
	if err != nil || len(pointers) == 0 {
		return err
	}
	if c.req.NoLFS {
		c.progress.line("note: %d files of Git LFS stay pointers, as source.lfs is false", len(pointers))
		return nil
	}
	from, err := c.lfsServer(ctx)
	if err != nil {
		return c.leftBehind(ctx, pointers[0], c.at, err)
	}
	defer from.client.CloseIdleConnections()
	var total int64
	for _, p := range pointers {
		total += p.Size
	}
	c.progress.line("getting %d files of Git LFS, %s", len(pointers), size(total))
	for batch := range slices.Chunk(pointers, lfsBatch) {
		if err := c.lfsGet(ctx, from, batch); err != nil {
			return err
		}
	}
	return lookAgain(meta, pointers)
}

// lookAgain has git compare the contents of files when it is next asked what
// changed, instead of taking their new size for a change: Git LFS, where the job
// has it, then says that they are the same.
func lookAgain(meta *git.Repository, pointers []pointer) error {
	index, err := meta.Storer.Index()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, p := range pointers {
		there[p.path] = true
	}
	for _, e := range index.Entries {
		if there[e.Name] {
			e.Size = 0
		}
	}
	return meta.Storer.SetIndex(index)
}

// leftBehind says that a file would stay a pointer, and why.
func (c *checkout) leftBehind(ctx context.Context, p pointer, at location, err error) error {
	there := *c
	there.at = at
	var known *Error
	if !errors.As(err, &known) {
		known = there.classify(ctx, err)
	}
	e := *known
	e.What = fmt.Sprintf("the contents of %s, a file of Git LFS, cannot be had: %s", p.path, e.What)
	e.Check = strings.TrimSpace(e.Check + " source.lfs: false leaves the pointer files as they are.")
	return &e
}

// readAttributes reads what .gitattributes files say; nil when no file of the
// commit belongs to Git LFS.
func (c *checkout) readAttributes(entries []treeEntry) (gitattributes.Matcher, error) {
	var rules []gitattributes.MatchAttribute
	ours := false
	for _, e := range entries {
		if filepath.Base(e.path) != ".gitattributes" || !strings.HasPrefix(e.mode, "100") {
			continue
		}
		text, err := readOwn(filepath.Join(c.dir, filepath.Dir(e.path)), ".gitattributes")
		if err != nil {
			return nil, err
		}
		ours = ours || bytes.Contains(text, []byte("filter=lfs"))
		var domain []string
		if dir := filepath.ToSlash(filepath.Dir(e.path)); dir != "." {
			domain = strings.Split(dir, "/")
		}
		more, err := gitattributes.ReadAttributes(bytes.NewReader(text), domain, domain == nil)
		if err != nil {
			continue // as git does with a line that it cannot read
		}
		rules = append(rules, more...)
	}
	if !ours {
		return nil, nil
	}
	return gitattributes.NewMatcher(rules), nil
}

// pointers finds the files that are pointers.
func (c *checkout) pointers(entries []treeEntry, attributes gitattributes.Matcher) ([]pointer, error) {
	var found []pointer
	for _, e := range entries {
		if !strings.HasPrefix(e.mode, "100") {
			continue
		}
		path, err := c.plainPath(e.path)
		if err != nil {
			return nil, err
		}
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > mostPointer {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		m := pointerForm.FindSubmatch(text)
		if m == nil {
			continue
		}
		results, _ := attributes.Match(strings.Split(e.path, "/"), []string{"filter"})
		if a, ok := results["filter"]; !ok || a.Value() != "lfs" {
			continue
		}
		p := pointer{path: e.path, OID: string(m[1])}
		if _, err := fmt.Sscanf(string(m[2]), "%d", &p.Size); err != nil {
			continue
		}
		found = append(found, p)
	}
	return found, nil
}

// lfsServer is where objects are had from.
type lfsServer struct {
	client *http.Client
	at     location
	url    string
	header map[string]string // to send with each request, from git-lfs-authenticate
}

// lfsServer finds out where the objects are: what .lfsconfig says, else beside
// the repository.
func (c *checkout) lfsServer(ctx context.Context) (*lfsServer, error) {
	text, err := readOwn(c.dir, ".lfsconfig")
	if err != nil {
		return nil, err
	}
	at := c.at
	named := config.NewConfig()
	if len(text) > 0 && named.Unmarshal(text) == nil {
		if raw := named.Raw.Section("lfs").Option("url"); raw != "" {
			if at, err = parseLocation(raw); err != nil {
				return nil, err
			}
			if at.web() {
				return c.lfsOver(at, strings.TrimRight(at.String(), "/")), nil
			}
		}
	}
	switch {
	case at.web():
		return c.lfsOver(at, besideRepository(at.String())), nil
	case at.scheme == "ssh" && at.String() == c.at.String():
		return c.lfsByAuthenticate(ctx)
	}
	return nil, problem(KindRequest, "Git LFS over "+at.scheme+":// is not supported here", "Name an https:// server with lfs.url in .lfsconfig.")
}

func (c *checkout) lfsOver(at location, base string) *lfsServer {
	line := c.openHTTP(func() {}).(*httpLine)
	return &lfsServer{client: line.client, at: at, url: base}
}

// besideRepository is the usual place of a repository's large files.
func besideRepository(repository string) string {
	base, _, _ := strings.Cut(strings.TrimRight(repository, "/"), "?")
	if !strings.HasSuffix(base, ".git") {
		base += ".git"
	}
	return base + "/info/lfs"
}

// lfsByAuthenticate asks over SSH for the address of the large files, and for
// what to say there.
func (c *checkout) lfsByAuthenticate(ctx context.Context) (*lfsServer, error) {
	said, err := c.runSSH(ctx, "git-lfs-authenticate "+shellQuote(strings.TrimPrefix(c.at.path, "/"))+" download")
	var remote *remoteError
	if errors.As(err, &remote) {
		return nil, &Error{Kind: KindServer, What: "the server has no Git LFS over SSH (git-lfs-authenticate)", Said: remote.said, Check: "Use the https:// URL of the repository, or name a server with lfs.url in .lfsconfig."}
	}
	if err != nil {
		return nil, err
	}
	var answer struct {
		Href   string            `json:"href"`
		Header map[string]string `json:"header"`
	}
	if err := json.Unmarshal(said, &answer); err != nil {
		return nil, problem(KindServer, "the server's answer to git-lfs-authenticate cannot be read", "")
	}
	base := answer.Href
	if base == "" {
		base = besideRepository("https://" + c.at.host + "/" + strings.TrimPrefix(c.at.path, "/"))
	}
	at, err := parseLocation(base)
	if err != nil || !at.web() {
		return nil, problem(KindServer, "the server names an address for large files that is none", "")
	}
	client := &http.Client{Transport: c.transport, CheckRedirect: checkRedirect}
	return &lfsServer{client: client, at: at, url: strings.TrimRight(base, "/"), header: answer.Header}, nil
}

// lfsObject is one answer of the batch request.
type lfsObject struct {
	OID     string `json:"oid"`
	Actions struct {
		Download *struct {
			Href   string            `json:"href"`
			Header map[string]string `json:"header"`
		} `json:"download"`
	} `json:"actions"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// lfsGet gets some objects.
func (c *checkout) lfsGet(ctx context.Context, from *lfsServer, pointers []pointer) error {
	objects, err := c.lfsAsk(ctx, from, pointers)
	if err != nil {
		return c.leftBehind(ctx, pointers[0], from.at, err)
	}
	byOID := map[string]lfsObject{}
	for _, o := range objects {
		byOID[o.OID] = o
	}
	for _, p := range pointers {
		at := from.at
		switch o := byOID[p.OID]; {
		case o.Error != nil:
			err = &Error{
				Kind: KindNotFound, What: fmt.Sprintf("the server does not give it out (%d)", o.Error.Code), Said: o.Error.Message,
				Check: "Check that it was pushed with git lfs push, and that the credentials may read it.",
			}
		case o.Actions.Download == nil:
			err = problem(KindServer, "the server does not say where it is", "Check that it was pushed with git lfs push.")
		default:
			if at, err = parseLocation(o.Actions.Download.Href); err != nil || !at.web() {
				err, at = problem(KindServer, "the server names an address for it that is none", ""), from.at
				break
			}
			_, err = persist(ctx, c, func() (struct{}, error) {
				return struct{}{}, c.lfsDownload(ctx, from, p, o.Actions.Download.Href, o.Actions.Download.Header)
			})
		}
		if err != nil {
			return c.leftBehind(ctx, p, at, err)
		}
	}
	return nil
}

// lfsAsk asks where objects are to be had.
func (c *checkout) lfsAsk(ctx context.Context, from *lfsServer, pointers []pointer) ([]lfsObject, error) {
	message, err := json.Marshal(map[string]any{
		"operation": "download", "transfers": []string{"basic"}, "hash_algo": "sha256", "objects": pointers,
	})
	if err != nil {
		return nil, err
	}
	return persist(ctx, c, func() ([]lfsObject, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, from.url+"/objects/batch", bytes.NewReader(message))
		if err != nil {
			return nil, problem(KindRequest, "the address of the repository's large files cannot be requested", "Check lfs.url in .lfsconfig.")
		}
		req.Header.Set("Content-Type", lfsType)
		req.Header.Set("Accept", lfsType)
		var answer struct {
			Objects []lfsObject `json:"objects"`
		}
		err = c.lfsDo(ctx, from, req, from.header, func(body io.Reader) error {
			if err := json.NewDecoder(io.LimitReader(body, 16<<20)).Decode(&answer); err != nil {
				return problem(KindServer, "the answer of the server of large files cannot be read", "Check that "+from.at.host+" has Git LFS.")
			}
			return nil
		})
		return answer.Objects, err
	})
}

// lfsDownload gets one object into the place of its pointer file.
func (c *checkout) lfsDownload(ctx context.Context, from *lfsServer, p pointer, href string, header map[string]string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, href, nil)
	if err != nil {
		return problem(KindServer, "the server names an address that is none", "")
	}
	place, err := c.plainPath(p.path)
	if err != nil {
		return err
	}
	return c.lfsDo(ctx, from, req, header, func(body io.Reader) error { return replaceFile(place, p, body) })
}

// replaceFile writes an object into the place of its pointer file, once it is
// there as a whole.
func replaceFile(place string, p pointer, body io.Reader) error {
	info, err := os.Lstat(place)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(place), ".lfs-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(body, p.Size+1))
	switch {
	case err != nil:
		return err
	case n < p.Size:
		return io.ErrUnexpectedEOF
	case n > p.Size || hex.EncodeToString(sum.Sum(nil)) != p.OID:
		return problem(KindServer, "what the server gave is not the object that was asked for", "Ask who runs it to check its storage.")
	}
	if err := errors.Join(file.Chmod(info.Mode().Perm()), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), place)
}

// lfsDo sends a request and reads the answer, with an eye on the clock. The
// headers come from the server; ours go to the repository's own host only.
func (c *checkout) lfsDo(ctx context.Context, from *lfsServer, req *http.Request, header map[string]string, read func(io.Reader) error) (err error) {
	ctx, dog := stall.New(ctx, c.stall, errStalled)
	defer dog.Stop()
	defer func() {
		if err != nil && errors.Is(context.Cause(ctx), errStalled) {
			err = errors.Join(errStalled, err)
		}
	}()
	req = req.WithContext(ctx)
	req.Header.Set("User-Agent", agent)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	client := from.client
	if req.Header.Get("Authorization") != "" {
		client = &http.Client{Transport: c.transport, CheckRedirect: client.CheckRedirect}
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body := stall.ReadCloser(res.Body, dog.Touch)
	if res.StatusCode == http.StatusOK {
		return read(body)
	}
	e := &httpError{status: res.StatusCode}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == lfsType || kind == "application/json" {
		var said struct {
			Message string `json:"message"`
		}
		_ = json.NewDecoder(bufio.NewReader(io.LimitReader(body, 4096))).Decode(&said)
		e.said = said.Message
	}
	return e
}
