package gitsrc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/longshore-run/longshore/internal/stall"
)

// run validates, tries, and tries again after faults of the network.
func (c *checkout) run(ctx context.Context) (Result, error) {
	if err := checkRef(c.req.Branch, c.req.Commit); err != nil {
		return Result{}, err
	}
	if _, err := cleanRepoDir(c.req.RepoDir); err != nil {
		return Result{}, err
	}
	var err error
	if c.dir, err = filepath.Abs(c.req.Dir); err != nil {
		return Result{}, err
	}
	undo, err := prepareDir(c.req.Dir)
	if err != nil {
		return Result{}, err
	}
	c.progress.line("getting %s", strings.TrimPrefix(c.tried(), "get "))
	if c.at.scheme == "http" && c.cred.Password != "" && !isLoopback(c.at.host) {
		c.progress.line("warning: credentials go to %s over http, which is not encrypted", c.at.host)
	}
	result, err := c.get(ctx)
	if err == nil && c.req.Lift {
		err = liftFolder(c.dir, c.req.RepoDir)
	}
	if err != nil {
		if undoErr := undo(); undoErr != nil {
			c.progress.line("note: the work directory could not be cleaned up: %v", undoErr)
		}
		return Result{}, err
	}
	if !c.req.Archive {
		c.progress.line("checked out %s: %s", result.Commit, result)
	}
	return result, nil
}

func (c *checkout) get(ctx context.Context) (Result, error) {
	if !c.req.Archive {
		if err := c.choose(ctx); err != nil {
			return Result{}, err
		}
	}
	return c.retry(ctx)
}

func (c *checkout) retry(ctx context.Context) (Result, error) {
	left := 3 // ways to ask for the same
	return persist(ctx, c, func() (Result, error) {
		for {
			result, err := c.once(ctx)
			if err == nil || ctx.Err() != nil || left == 0 || !c.otherwise(ctx, err) {
				return result, err
			}
			left--
		}
	})
}

// otherwise reports whether to ask again at once, in another way than the one
// that failed.
func (c *checkout) otherwise(ctx context.Context, err error) bool {
	var (
		remote *remoteError
		answer *httpError
	)
	switch {
	case errors.As(err, &answer) && answer.bearer && !c.bearer && c.cred.Token != "":
		c.bearer = true
		return true
	case errors.As(err, &remote) && remote.inPack:
		// The server refuses a commit that it does not want to give out by
		// itself; or a branch moved between the list of refs and the
		// request for its commit, which is then no longer the server's.
		return true
	case c.withoutMirror(ctx, err):
		c.progress.line("note: what the mirror has is of no use; all is fetched from the server")
		c.noMirror = true
		return true
	}
	return false
}

// persist tries again after faults of the network, with longer and longer waits.
func persist[T any](ctx context.Context, c *checkout, try func() (T, error)) (T, error) {
	policy := backoff.NewExponentialBackOff(backoff.WithInitialInterval(c.firstWait), backoff.WithMultiplier(2), backoff.WithMaxElapsedTime(0))
	attempt := func() (T, error) {
		result, err := try()
		if err != nil && (!retryable(err) || ctx.Err() != nil) {
			return result, backoff.Permanent(err)
		}
		return result, err
	}
	left := retries + 1
	notify := func(err error, wait time.Duration) {
		left--
		c.progress.line("%s; trying again in %s (%d left)", c.explain(ctx, err).What, wait.Round(time.Millisecond), left)
	}
	return backoff.RetryNotifyWithData(attempt, backoff.WithContext(backoff.WithMaxRetries(policy, retries), ctx), notify)
}

// once is one attempt. It begins and, when it fails, ends with an empty
// directory.
func (c *checkout) once(ctx context.Context) (result Result, err error) {
	ctx, dog := stall.New(ctx, c.stall, errStalled)
	defer dog.Stop()
	c.attempt = attempt{}
	defer func() {
		c.settleMirror(err == nil)
		if err == nil {
			return
		}
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = errors.Join(errStalled, err)
		}
		err = errors.Join(err, emptyDir(c.req.Dir))
	}()
	if c.req.Archive {
		return c.archive(ctx, dog)
	}
	s, err := c.open(ctx, dog.Touch)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = s.Close() }() // everything was read, or it failed already
	t, err := c.resolve(ctx, s)
	if err != nil {
		return Result{}, err
	}
	if t.wide && s.can.filter && s.can.again && !c.noFilter && !c.refused {
		if t, err = c.lookUp(ctx, s, t, dog); err != nil {
			return Result{}, err
		}
	}
	meta, err := c.initialise(ctx, t)
	if err != nil {
		return Result{}, err
	}
	defer closeStore(meta)
	repo := c.repository(meta)
	if c.maySparse(s, t) {
		partial := gitRepository{command: c.git, dir: c.dir, update: c.progress.update, partial: true}
		plan, err := c.fetchSparse(ctx, s, t, meta, partial, dog)
		if err != nil {
			return Result{}, err
		}
		if plan != nil {
			dog.Rest()
			return c.place(ctx, meta, repo, t, plan)
		}
	}
	if err := c.fetchAll(ctx, s, t, meta, repo, dog); err != nil {
		return Result{}, err
	}
	dog.Rest()
	return c.place(ctx, meta, repo, t, nil)
}

// fetchAll brings the wanted commit over with all its files.
func (c *checkout) fetchAll(ctx context.Context, s *session, t target, meta *git.Repository, repo repository, dog *stall.Watch) error {
	switch {
	case c.mirrored(s, t):
		return c.bring(ctx, s, t, meta, repo, dog)
	case t.wide:
		c.progress.line("the server does not give out commit %s by itself; fetching all branches and tags", c.req.Commit)
		return c.fetch(ctx, s, wish{want: t.all}, meta, repo, dog)
	}
	return c.fetch(ctx, s, wish{want: []plumbing.Hash{t.want}, shallow: s.can.shallow}, meta, repo, dog)
}

// lookUp finds the commit that a short hash means, by the history alone: it
// fetches all commits and no files, and keeps none of them.
func (c *checkout) lookUp(ctx context.Context, s *session, t target, dog *stall.Watch) (target, error) {
	c.progress.line("looking for commit %s in the history of all branches and tags", c.req.Commit)
	meta, err := c.initialise(ctx, t)
	if err != nil {
		return target{}, err
	}
	defer closeStore(meta)
	repo := c.repository(meta)
	if err := c.fetch(ctx, s, wish{want: t.all, filter: "tree:0"}, meta, repo, dog); err != nil {
		return target{}, err
	}
	hash, err := c.only(ctx, repo)
	if err != nil {
		return target{}, err
	}
	dog.Touch()
	return target{want: hash, commit: hash}, emptyDir(c.req.Dir)
}

// repository sets the chosen engine to work on what initialise made.
func (c *checkout) repository(meta *git.Repository) repository {
	if c.git == nil {
		return goGit{meta}
	}
	return gitRepository{command: c.git, dir: c.dir, update: c.progress.update}
}

// initialise makes the repository, with a remote that holds no credentials.
func (c *checkout) initialise(ctx context.Context, t target) (*git.Repository, error) {
	tree := boundFS{osfs.New(c.dir, osfs.WithBoundOS()), ctx} // links as they are, and none followed out of dir
	dotGit, err := tree.Chroot(git.GitDirName)
	if err != nil {
		return nil, err
	}
	first, track := plumbing.Main, "refs/heads/*"
	if t.ref.IsBranch() {
		first, track = t.ref, t.ref.String()
	}
	// Descriptors are kept, or go-git opens the pack anew for every file.
	store := filesystem.NewStorageWithOptions(dotGit, cache.NewObjectLRUDefault(), filesystem.Options{KeepDescriptors: true})
	repo, err := git.InitWithOptions(store, tree, git.InitOptions{DefaultBranch: first})
	if err != nil {
		return nil, err
	}
	cfg, err := repo.Config()
	if err != nil {
		return nil, err
	}
	spec := "+" + track + ":" + strings.Replace(track, "refs/heads/", "refs/remotes/origin/", 1)
	cfg.Remotes["origin"] = &config.RemoteConfig{Name: "origin", URLs: []string{c.at.String()}, Fetch: []config.RefSpec{config.RefSpec(spec)}}
	if t.ref.IsBranch() {
		cfg.Branches[t.ref.Short()] = &config.Branch{Name: t.ref.Short(), Remote: "origin", Merge: t.ref}
	}
	return repo, repo.SetConfig(cfg)
}

// closeStore lets go of the files that go-git keeps open.
func closeStore(meta *git.Repository) {
	if store, ok := meta.Storer.(io.Closer); ok {
		_ = store.Close() // they were only read
	}
}

// fetch brings objects over.
func (c *checkout) fetch(ctx context.Context, s *session, w wish, meta *git.Repository, repo repository, dog *stall.Watch) error {
	response, err := s.talks.pack(ctx, w)
	var remote *remoteError
	if errors.As(err, &remote) {
		// What to do without, when there is a next time.
		c.noFilter = c.noFilter || w.filter != ""
		c.refused = c.req.Commit != "" && w.filter == "" && !s.can.final
		return &remoteError{said: remote.said, inPack: true}
	}
	if err != nil {
		return err
	}
	defer func() { _ = response.Close() }()
	if len(response.shallow) > 0 {
		if err := meta.Storer.SetShallow(append(c.shallow, response.shallow...)); err != nil {
			return err
		}
	}
	var pack io.Reader = response.pack
	if response.banded {
		pack = &sideband{packets: response.pack, progress: c.progress}
	}
	if c.entry != nil && w.filter == "" {
		pack = io.TeeReader(pack, c.entry)
	}
	in := &packReader{from: pack, progress: c.progress, done: dog.Rest}
	if err := repo.add(ctx, in); err != nil {
		return errors.Join(in.err, err)
	}
	return nil
}

// packReader counts what comes, and keeps the error that ended it: go-git wraps
// it in ways that lose its type.
type packReader struct {
	from     io.Reader
	progress *progress
	done     func()
	err      error
}

func (r *packReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.progress.received(n)
	if err != nil {
		r.done()
		if !errors.Is(err, io.EOF) {
			r.err = err
		}
	}
	return n, err
}

// place sets HEAD, writes the files and says what they are.
func (c *checkout) place(ctx context.Context, meta *git.Repository, repo repository, t target, plan *sparsePlan) (Result, error) {
	commit, err := c.commit(ctx, repo, t)
	if err != nil {
		return Result{}, err
	}
	if err := setRefs(meta, t, commit.Hash); err != nil {
		return Result{}, err
	}
	if err := repo.write(ctx, commit.Hash); err != nil {
		return Result{}, err
	}
	entries, err := repo.entries(ctx, commit.Hash)
	if err != nil {
		return Result{}, err
	}
	entries = slices.DeleteFunc(entries, func(e treeEntry) bool { return !plan.has(e.path) })
	if err := c.submodules(ctx, entries); err != nil {
		return Result{}, err
	}
	if err := c.lfs(ctx, meta, entries); err != nil {
		return Result{}, err
	}
	if err := checkRepoDir(c.req.Dir, c.req.RepoDir); err != nil {
		return Result{}, err
	}
	subject, _, _ := strings.Cut(strings.TrimSpace(commit.Message), "\n")
	if runes := []rune(subject); len(runes) > 72 {
		subject = string(runes[:72]) + "..."
	}
	return Result{Commit: commit.Hash.String(), Ref: t.ref.String(), Author: commit.Author.Name, When: commit.Committer.When, Subject: subject}, nil
}

// setRefs makes HEAD the branch that was asked for, or else the commit itself.
func setRefs(meta *git.Repository, t target, commit plumbing.Hash) error {
	head := plumbing.NewHashReference(plumbing.HEAD, commit)
	var set []*plumbing.Reference
	switch {
	case t.ref.IsBranch():
		head = plumbing.NewSymbolicReference(plumbing.HEAD, t.ref)
		set = append(set, plumbing.NewHashReference(t.ref, commit),
			plumbing.NewHashReference(plumbing.NewRemoteReferenceName("origin", t.ref.Short()), commit))
	case t.ref != "":
		set = append(set, plumbing.NewHashReference(t.ref, t.want))
	}
	for _, ref := range append(set, head) {
		if err := meta.Storer.SetReference(ref); err != nil {
			return err
		}
	}
	return nil
}

// commit finds the commit to check out among the objects that came.
func (c *checkout) commit(ctx context.Context, repo repository, t target) (*object.Commit, error) {
	hash := t.commit
	if t.wide {
		var err error
		if hash, err = c.only(ctx, repo); err != nil {
			return nil, err
		}
	}
	commit, err := repo.commit(ctx, hash)
	if errors.Is(err, errNoCommit) {
		return nil, problem(KindRefUnknown, hash.String()+" is not a commit", "Name a commit, a branch or a tag of a commit.")
	}
	return commit, err
}

// only returns the one stored commit that the request's hash means.
func (c *checkout) only(ctx context.Context, repo repository) (plumbing.Hash, error) {
	found, err := repo.commits(ctx, strings.ToLower(c.req.Commit))
	switch {
	case err != nil:
		return plumbing.ZeroHash, err
	case len(found) == 0:
		return plumbing.ZeroHash, problem(KindRefUnknown, "no branch and no tag of the repository reaches commit "+c.req.Commit, "Check the hash, and that the commit was pushed and its branch not deleted or rewritten.")
	case len(found) > 1:
		return plumbing.ZeroHash, problem(KindRefUnknown, fmt.Sprintf("%d commits begin with %s", len(found), c.req.Commit), "Give more digits.")
	}
	return found[0], nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
