package gitsrc

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
)

// target is what to fetch.
type target struct {
	ref    plumbing.ReferenceName // empty for a bare commit
	want   plumbing.Hash          // the object to ask for; zero when wide
	commit plumbing.Hash          // the commit it stands for, where that is known
	wide   bool                   // the server gives out no such object by itself: fetch all branches and tags
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

// resolve finds what to fetch among the refs that the server has.
func resolve(refs *packp.AdvRefs, branch, commit string) (target, error) {
	switch {
	case commit != "":
		return resolveCommit(refs, strings.ToLower(commit))
	case branch == "" || branch == "HEAD":
		return resolveHead(refs)
	}
	for _, name := range []string{branch, "refs/heads/" + branch, "refs/tags/" + branch, "refs/" + branch} {
		if !strings.HasPrefix(name, "refs/") {
			continue
		}
		if hash, ok := refs.References[name]; ok {
			return refTarget(refs, name, hash), nil
		}
	}
	return target{}, refUnknown(refs, branch)
}

func refTarget(refs *packp.AdvRefs, name string, hash plumbing.Hash) target {
	t := target{ref: plumbing.ReferenceName(name), want: hash, commit: hash}
	if peeled, ok := refs.Peeled[name]; ok { // an annotated tag
		t.commit = peeled
	}
	return t
}

func resolveHead(refs *packp.AdvRefs) (target, error) {
	for _, symref := range refs.Capabilities.Get(capability.SymRef) {
		if name, ok := strings.CutPrefix(symref, "HEAD:"); ok {
			if hash, ok := refs.References[name]; ok {
				return refTarget(refs, name, hash), nil
			}
		}
	}
	if refs.Head == nil {
		return target{}, refUnknown(refs, "HEAD")
	}
	for _, name := range []string{"refs/heads/main", "refs/heads/master"} {
		if refs.References[name] == *refs.Head {
			return refTarget(refs, name, *refs.Head), nil
		}
	}
	return target{want: *refs.Head, commit: *refs.Head}, nil
}

func resolveCommit(refs *packp.AdvRefs, commit string) (target, error) {
	tips := map[plumbing.Hash]plumbing.Hash{} // commit -> object to ask for
	for name, hash := range refs.References {
		if t := refTarget(refs, name, hash); strings.HasPrefix(t.commit.String(), commit) {
			if _, plain := tips[t.commit]; !plain || t.want == t.commit {
				tips[t.commit] = t.want
			}
		}
	}
	caps := refs.Capabilities
	byHash := caps.Supports(capability.AllowReachableSHA1InWant) || caps.Supports("allow-any-sha1-in-want") || caps.Supports(capability.AllowTipSHA1InWant)
	switch {
	case len(commit) == 40 && (len(tips) > 0 || byHash):
		hash := plumbing.NewHash(commit)
		t := target{want: hash, commit: hash}
		if want, ok := tips[hash]; ok {
			t.want = want
		}
		return t, nil
	default:
		// Even when one tip begins with these digits another commit may, too:
		// only the whole history can say that a short hash means one commit.
		return target{wide: true}, nil
	}
}

// refUnknown says that there is no such ref, and which there are.
func refUnknown(refs *packp.AdvRefs, asked string) error {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(refs.References)) {
		for _, prefix := range []string{"refs/heads/", "refs/tags/"} {
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
