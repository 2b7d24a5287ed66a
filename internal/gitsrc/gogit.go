package gitsrc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// goGit is the engine that is built in. Its file system ends with the context
// of the checkout (see boundFS), because go-git takes none.
type goGit struct{ repo *git.Repository }

func (g goGit) add(_ context.Context, pack io.Reader) error {
	return packfile.UpdateObjectStorage(g.repo.Storer, pack)
}

func (g goGit) commits(_ context.Context, prefix string) ([]plumbing.Hash, error) {
	all, err := g.repo.CommitObjects()
	if err != nil {
		return nil, err
	}
	defer all.Close()
	var found []plumbing.Hash
	err = all.ForEach(func(o *object.Commit) error {
		if strings.HasPrefix(o.Hash.String(), prefix) {
			found = append(found, o.Hash)
		}
		return nil
	})
	return found, err
}

func (g goGit) commit(_ context.Context, hash plumbing.Hash) (*object.Commit, error) {
	commit, err := g.repo.CommitObject(hash)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, errNoCommit
	}
	return commit, err
}

func (g goGit) entries(ctx context.Context, commit plumbing.Hash) ([]treeEntry, error) {
	of, err := g.commit(ctx, commit)
	if err != nil {
		return nil, err
	}
	tree, err := of.Tree()
	if err != nil {
		return nil, err
	}
	walker := object.NewTreeWalker(tree, true, nil)
	defer walker.Close()
	var entries []treeEntry
	for {
		name, e, err := walker.Next()
		switch {
		case errors.Is(err, io.EOF):
			return entries, nil
		case err != nil:
			return nil, err
		case e.Mode != filemode.Dir:
			entries = append(entries, treeEntry{mode: fmt.Sprintf("%06o", uint32(e.Mode)), hash: e.Hash, path: name})
		}
	}
}

func (g goGit) write(_ context.Context, commit plumbing.Hash) error {
	tree, err := g.repo.Worktree()
	if err != nil {
		return err
	}
	if err := tree.Reset(&git.ResetOptions{Mode: git.MergeReset, Commit: commit}); err != nil {
		return fmt.Errorf("write the files: %w", err)
	}
	return nil
}
