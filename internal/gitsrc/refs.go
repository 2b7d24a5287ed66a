package gitsrc

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// target is what to fetch.
type target struct {
	ref    plumbing.ReferenceName // empty for a bare commit
	want   plumbing.Hash          // the object to ask for; zero when wide
	commit plumbing.Hash          // the commit it stands for, where that is known
	wide   bool                   // the server gives out no such object by itself: fetch all branches and tags
	all    []plumbing.Hash        // what those point to
}

var hexHash = regexp.MustCompile(`^[0-9a-f]{4,40}$`)

// checkRef finds mistakes in what is asked for before anything is started.
func checkRef(branch, commit string) error {
	switch {
	case branch != "" && commit != "":
		return problem(KindRequest, "branch and commit are both set", "Name one of them.")
	case strings.HasPrefix(branch, "-"), strings.ContainsAny(branch, " ~^:?*[\\\x00\n\r\t"), strings.Contains(branch, ".."):
		return problem(KindRequest, fmt.Sprintf("%q is not a branch name", branch), "Check sourceContext.git.branch.")
	case len(commit) == 64 && strings.Trim(strings.ToLower(commit), "0123456789abcdef") == "":
		return problem(KindRequest, "repositories with SHA-256 hashes are not supported", "")
	case commit != "" && !hexHash.MatchString(strings.ToLower(commit)):
		return problem(KindRequest, fmt.Sprintf("%q is not a commit hash", commit), "Give 7 to 40 hexadecimal digits, or set branch instead.")
	}
	return nil
}

// refNames returns the full names that a branch, tag or ref may stand for, in
// the order in which they are looked for.
func refNames(branch string) []string {
	names := []string{"refs/heads/" + branch, "refs/tags/" + branch, "refs/" + branch}
	if strings.HasPrefix(branch, "refs/") {
		names = append([]string{branch}, names...)
	}
	return names
}

// branchesAndTags are the prefixes of the refs that people look at.
var branchesAndTags = []string{"refs/heads/", "refs/tags/"}

// resolve finds out what to fetch.
func (c *checkout) resolve(ctx context.Context, s *session) (target, error) {
	branch, commit := c.req.Branch, strings.ToLower(c.req.Commit)
	full := len(commit) == 40
	switch {
	case full && s.can.prefixes && !c.refused:
		hash := plumbing.NewHash(commit)
		return target{want: hash, commit: hash}, nil
	case commit != "":
		refs, err := s.talks.refs(ctx, branchesAndTags)
		if err != nil {
			return target{}, err
		}
		if full && !c.refused {
			return resolveCommit(refs, s.can, commit), nil
		}
		// Even when one tip begins with these digits another commit may, too:
		// only the whole history can say that a short hash means one commit.
		t := target{wide: true, all: refs.branchesAndTags()}
		if len(t.all) == 0 {
			return target{}, errEmpty
		}
		return t, nil
	}
	wanted := refNames(branch)
	if branch == "" || branch == "HEAD" {
		wanted = []string{"HEAD"}
	}
	refs, err := s.talks.refs(ctx, wanted)
	if err != nil {
		return target{}, err
	}
	if t, ok := refs.find(wanted); ok {
		return t, nil
	}
	if s.can.prefixes { // to say which there are
		if refs, err = s.talks.refs(ctx, branchesAndTags); err != nil {
			return target{}, err
		}
		if len(refs.names) == 0 {
			return target{}, errEmpty
		}
	}
	return target{}, refUnknown(refs, cmp.Or(branch, "HEAD"))
}

// find returns the first of the names that there is.
func (l *refList) find(names []string) (target, bool) {
	for _, name := range names {
		if name == "HEAD" {
			return l.resolveHead()
		}
		if hash, ok := l.names[name]; ok {
			return l.target(name, hash), true
		}
	}
	return target{}, false
}

func (l *refList) target(name string, hash plumbing.Hash) target {
	t := target{ref: plumbing.ReferenceName(name), want: hash, commit: hash}
	if peeled, ok := l.peeled[name]; ok { // an annotated tag
		t.commit = peeled
	}
	return t
}

func (l *refList) resolveHead() (target, bool) {
	if hash, ok := l.names[l.headName]; ok {
		return l.target(l.headName, hash), true
	}
	if l.head == nil {
		return target{}, false
	}
	for _, name := range []string{"refs/heads/main", "refs/heads/master"} {
		if l.names[name] == *l.head {
			return l.target(name, *l.head), true
		}
	}
	return target{want: *l.head, commit: *l.head}, true
}

// branchesAndTags returns what the branches and tags point to.
func (l *refList) branchesAndTags() []plumbing.Hash {
	all := map[plumbing.Hash]bool{}
	for name, hash := range l.names {
		if strings.HasPrefix(name, branchesAndTags[0]) || strings.HasPrefix(name, branchesAndTags[1]) {
			all[hash] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })
}

// resolveCommit says how to ask for a full commit hash: by itself where a ref
// points to it or the server gives out others, too.
func resolveCommit(refs *refList, can abilities, commit string) target {
	hash := plumbing.NewHash(commit)
	t := target{want: hash, commit: hash, wide: !can.anyCommit}
	for name, tip := range refs.names {
		if at := refs.target(name, tip); at.commit == hash && (t.wide || at.want == hash) {
			t.want, t.wide = at.want, false
		}
	}
	if t.wide {
		t.all = refs.branchesAndTags()
	}
	return t
}

// refUnknown says that there is no such ref, and which there are.
func refUnknown(refs *refList, asked string) error {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(refs.names)) {
		for _, prefix := range branchesAndTags {
			if short, ok := strings.CutPrefix(name, prefix); ok {
				names = append(names, short)
			}
		}
	}
	check := "The repository has no branches and no tags."
	if len(names) > 0 {
		short := asked[strings.LastIndexByte(asked, '/')+1:]
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(distance(a, short), distance(b, short)) })
		more := ""
		if n := len(names) - 5; n > 0 {
			names, more = names[:5], fmt.Sprintf(" and %d more", n)
		}
		check = "There are " + strings.Join(names, ", ") + more + "."
	}
	return problem(KindRefUnknown, fmt.Sprintf("the repository has no branch or tag %q", asked), check)
}

// distance says how unlike two names are, roughly: which to suggest first.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	switch {
	case a == b:
		return 0
	case b != "" && strings.Contains(a, b), a != "" && strings.Contains(b, a):
		return 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			above := row[j]
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			row[j] = min(cost, above+1, row[j-1]+1)
			diagonal = above
		}
	}
	return 1 + row[len(b)]
}
