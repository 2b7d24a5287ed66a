package gitsrc

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Engine says which git keeps the objects of a checkout and writes its files.
type Engine string

// The engines. The zero value means EngineAuto.
const (
	EngineAuto  Engine = "auto"   // the git command where there is one, else go-git
	EngineGit   Engine = "git"    // the git command
	EngineGoGit Engine = "go-git" // what is built in
)

// repository is one engine at work on one checkout: it keeps objects and writes
// files, which is where git spends its time and memory. The conversation with
// the server is not its business: that is the same for every engine, so no
// engine needs the network and none ever sees a credential.
//
// The directory, its configuration and its refs are there before the first call
// and are not touched by it. Calls follow one another; each ends soon after ctx
// does. A failed call may leave anything behind: the directory is emptied then.
type repository interface {
	// add stores the objects of a pack, which it reads to its end.
	add(ctx context.Context, pack io.Reader) error
	// commits returns the stored commits whose hashes begin with prefix.
	commits(ctx context.Context, prefix string) ([]plumbing.Hash, error)
	// commit reads a stored commit. errNoCommit when hash is something else.
	commit(ctx context.Context, hash plumbing.Hash) (*object.Commit, error)
	// entries lists the files and submodules of a stored commit.
	entries(ctx context.Context, commit plumbing.Hash) ([]treeEntry, error)
	// write makes the index and the work tree those of a stored commit.
	write(ctx context.Context, commit plumbing.Hash) error
}

// treeEntry is one file of a commit, or what stands for a submodule.
type treeEntry struct {
	mode string
	hash plumbing.Hash
	path string
}

const (
	modeSymlink   = "120000"
	modeSubmodule = "160000"
)

func (e treeEntry) isFile() bool { return strings.HasPrefix(e.mode, "100") || e.mode == modeSymlink }

var errNoCommit = errors.New("not a commit")

// choose settles which engine is used, and says which one and why.
func (c *checkout) choose(ctx context.Context) error {
	if c.req.Engine == EngineGoGit {
		c.progress.line("git engine: go-git, built in, as it was asked for")
		return nil
	}
	found, err := findGit(ctx)
	switch c.req.Engine {
	case EngineAuto, "":
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			c.progress.line("git engine: go-git, built in, because %v", err)
			return nil
		}
		c.progress.line("git engine: git %s, because %s is there", found.version, found.path)
	case EngineGit:
		if err != nil {
			return problem(KindRequest, "the git command is to be used, and "+err.Error(), "Use an image that has git, or let source.engine be auto.")
		}
		c.progress.line("git engine: git %s, %s, as it was asked for", found.version, found.path)
	default:
		return problem(KindRequest, "there is no git engine called "+string(c.req.Engine), "Let source.engine be auto, git or go-git.")
	}
	c.git = found
	return nil
}
