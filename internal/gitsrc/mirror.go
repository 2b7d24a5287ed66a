package gitsrc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/longshore-run/longshore/internal/mirror"

	"github.com/longshore-run/longshore/internal/stall"
)

const (
	// lookBack is how many commits before the wanted one are looked for in the
	// mirror.
	lookBack = 30
	// deepestEntry is how many entries of a mirror may rely on one another.
	deepestEntry = 8
	// mostProof bounds what is fetched to find entries and to open them.
	mostProof = 16 << 20
)

// mirrored says whether the mirror can be asked: the server must be able to give
// out commits and trees by themselves.
func (c *checkout) mirrored(s *session, t target) bool {
	return c.req.Mirror != nil && !c.noMirror && !t.wide && s.can.filter && s.can.again && s.can.shallow
}

// bring gets the wanted commit with the help of the mirror: from there, or what
// is there of a commit before it and the rest from the server; else from the
// server alone. What the server gave is put into the mirror when the checkout has
// succeeded.
//
// That the server accepts our credentials was seen before; what it says about the
// commits is what finds and opens entries.
func (c *checkout) bring(ctx context.Context, s *session, t target, meta *git.Repository, repo repository, dog *stall.Watch) error {
	proof := &proof{c: c, s: s}
	if err := proof.history(ctx, t); err != nil {
		return err
	}
	have, err := c.fromMirror(ctx, proof, t, meta, repo, dog)
	if err != nil {
		return err
	}
	dog.Touch()
	if have != nil && have.Commit == t.commit.String() && t.want == t.commit {
		c.progress.line("commit %s comes from the mirror", t.commit)
		return nil
	}
	w := wish{want: []plumbing.Hash{t.want}, shallow: true}
	header := mirror.Header{Commit: t.commit.String()}
	if have != nil {
		w.have = []plumbing.Hash{plumbing.NewHash(have.Commit)}
		header.Base, header.Depth = have.base, have.Depth+1
		c.progress.line("commit %s comes from the mirror, what is new since then from the server", have.Commit)
	}
	if have == nil || have.Commit != header.Commit {
		name, key, err := proof.key(ctx, t.commit)
		if err != nil {
			return err
		}
		c.entry = c.req.Mirror.Create(name, key, header)
	}
	return c.fetch(ctx, s, w, meta, repo, dog)
}

// found is an entry of the mirror that was put into the repository.
type found struct {
	mirror.Header
	base *mirror.Base // how to name it as the base of another
}

// fromMirror puts the nearest commit that the mirror has into the repository. It
// returns nil when there is none.
func (c *checkout) fromMirror(ctx context.Context, p *proof, t target, meta *git.Repository, repo repository, dog *stall.Watch) (*found, error) {
	for _, commit := range p.commits {
		raw, err := p.raw(commit.Hash)
		if err != nil {
			return nil, err
		}
		if !c.req.Mirror.Has(mirror.Name(raw)) {
			continue
		}
		exact := commit.Hash == t.commit
		if c.git == nil && (!exact || t.want != t.commit) {
			return nil, nil // go-git cannot complete a pack by what is there already
		}
		name, key, err := p.key(ctx, commit.Hash)
		if err != nil {
			return nil, err
		}
		chain, err := c.chain(mirror.Base{Name: name, Key: key})
		var broken *brokenEntry
		if errors.As(err, &broken) {
			c.req.Mirror.Broken(broken.name)
			c.progress.line("note: an entry of the mirror cannot be used")
			continue
		}
		if err != nil {
			return nil, err
		}
		top := chain[len(chain)-1]
		if chain == nil || top.Commit != commit.Hash.String() || c.git == nil && len(chain) > 1 || !exact && top.Depth >= deepestEntry {
			continue
		}
		dog.Rest() // nothing comes from the server meanwhile
		return top, c.unpackChain(ctx, chain, meta, repo)
	}
	return nil, nil
}

// brokenEntry is an entry that cannot be read.
type brokenEntry struct {
	name string
	err  error
}

func (e *brokenEntry) Error() string { return "entry of the mirror: " + e.err.Error() }

func (e *brokenEntry) Unwrap() error { return e.err }

// chain returns an entry and those that it relies on, the lowest first. The error
// is a *brokenEntry when one is missing or damaged.
func (c *checkout) chain(top mirror.Base) (chain []*found, err error) {
	for next := &top; next != nil; {
		if len(chain) > deepestEntry {
			return nil, &brokenEntry{top.Name, mirror.ErrBroken}
		}
		h, err := c.header(*next)
		if err != nil {
			return nil, &brokenEntry{next.Name, err}
		}
		base := *next
		chain, next = append(chain, &found{h, &base}), h.Base
	}
	slices.Reverse(chain)
	return chain, nil
}

func (c *checkout) header(of mirror.Base) (mirror.Header, error) {
	file, err := c.req.Mirror.Open(of.Name)
	if err != nil {
		return mirror.Header{}, err
	}
	defer file.Close()
	_, h, err := mirror.NewReader(file, of.Key)
	if err == nil && !fullHash.MatchString(h.Commit) {
		err = mirror.ErrBroken
	}
	return h, err
}

// unpackChain puts entries into the repository. Every object's hash is made of
// what arrives, by whoever indexes the pack: an entry with other contents than
// the server's has other objects, and the files of the commit are not found.
func (c *checkout) unpackChain(ctx context.Context, chain []*found, meta *git.Repository, repo repository) error {
	c.fromStore = true
	for _, e := range chain {
		if err := c.unpackEntry(ctx, *e.base, repo); err != nil {
			c.req.Mirror.Broken(e.base.Name)
			return err
		}
		c.req.Mirror.Used(e.base.Name)
		c.shallow = append(c.shallow, plumbing.NewHash(e.Commit))
	}
	return meta.Storer.SetShallow(c.shallow)
}

func (c *checkout) unpackEntry(ctx context.Context, of mirror.Base, repo repository) error {
	file, err := c.req.Mirror.Open(of.Name)
	if err != nil {
		return &brokenEntry{of.Name, err}
	}
	defer file.Close()
	pack, _, err := mirror.NewReader(file, of.Key)
	if err != nil {
		return &brokenEntry{of.Name, err}
	}
	if err := repo.add(ctx, pack); err != nil {
		return &brokenEntry{of.Name, err}
	}
	return nil
}

// withoutMirror reports whether a failed attempt may have failed for what came
// out of the mirror, so that one without it is worth while.
func (c *checkout) withoutMirror(ctx context.Context, err error) bool {
	var (
		known  *Error
		broken *brokenEntry
	)
	switch {
	case !c.fromStore || ctx.Err() != nil:
		return false
	case errors.As(err, &broken):
		return true
	}
	return !retryable(err) && (!errors.As(err, &known) || known.Kind == KindRefUnknown)
}

// settleMirror keeps what the checkout fetched, or drops it.
func (c *checkout) settleMirror(ok bool) {
	if c.entry == nil {
		return
	}
	if ok {
		if err := c.entry.Keep(); err != nil {
			c.progress.line("note: the mirror does not get this commit: %v", err)
		}
	}
	c.entry.Drop()
	c.entry = nil
}

// proof is what the server says about the wanted commit and those before it.
type proof struct {
	c       *checkout
	s       *session
	store   *memory.Storage
	commits []*object.Commit // the wanted one first
}

// history asks for commits alone.
func (p *proof) history(ctx context.Context, t target) (err error) {
	p.store, err = p.c.ask(ctx, p.s, wish{want: []plumbing.Hash{t.want}, shallow: true, depth: lookBack, filter: "tree:0"})
	if err != nil {
		return err
	}
	for _, raw := range p.store.Commits {
		commit := &object.Commit{}
		if err := commit.Decode(raw); err != nil {
			return fmt.Errorf("read commit %s: %w", raw.Hash(), err)
		}
		p.commits = append(p.commits, commit)
	}
	slices.SortFunc(p.commits, func(a, b *object.Commit) int {
		switch {
		case a.Hash == t.commit:
			return -1
		case b.Hash == t.commit:
			return 1
		}
		if order := b.Committer.When.Compare(a.Committer.When); order != 0 {
			return order
		}
		return strings.Compare(a.Hash.String(), b.Hash.String())
	})
	if len(p.commits) == 0 || p.commits[0].Hash != t.commit {
		return problem(KindRefUnknown, t.want.String()+" is not a commit", "Name a commit, a branch or a tag of a commit.")
	}
	return nil
}

// key returns the name and the key of the entry for a commit that history told of.
func (p *proof) key(ctx context.Context, hash plumbing.Hash) (name string, key mirror.Key, err error) {
	raw, err := p.raw(hash)
	if err != nil {
		return "", nil, err
	}
	i := slices.IndexFunc(p.commits, func(c *object.Commit) bool { return c.Hash == hash })
	tree := p.commits[i].TreeHash
	store, err := p.c.ask(ctx, p.s, wish{want: []plumbing.Hash{tree}, filter: "tree:0"})
	if err != nil {
		return "", nil, err
	}
	found, ok := store.Trees[tree]
	if !ok {
		return "", nil, fmt.Errorf("the server did not send tree %s", tree)
	}
	content, err := contentOf(found)
	return mirror.Name(raw), mirror.NewKey(raw, content), err
}

func (p *proof) raw(hash plumbing.Hash) ([]byte, error) { return contentOf(p.store.Commits[hash]) }

func contentOf(o plumbing.EncodedObject) ([]byte, error) {
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// ask fetches a few small objects into memory.
func (c *checkout) ask(ctx context.Context, s *session, w wish) (*memory.Storage, error) {
	response, err := s.talks.pack(ctx, w)
	var remote *remoteError
	if errors.As(err, &remote) {
		c.noMirror = true // goes without, when there is a next time
		return nil, &remoteError{said: remote.said, inPack: true}
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Close() }()
	var pack io.Reader = response.pack
	if response.banded {
		pack = &sideband{packets: response.pack, progress: io.Discard}
	}
	var all bytes.Buffer
	if _, err := io.Copy(&all, io.LimitReader(pack, mostProof+1)); err != nil {
		return nil, err
	}
	if all.Len() > mostProof {
		c.noMirror = true
		return nil, &remoteError{said: "the history is too large to look for in the mirror", inPack: true}
	}
	store := memory.NewStorage()
	err = packfile.UpdateObjectStorage(store, &all)
	if errors.Is(err, packfile.ErrEmptyPackfile) {
		err = fs.ErrNotExist
	}
	return store, err
}
