package gitsrc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/longshore-run/longshore/internal/stall"
)

const (
	// fewFiles is how many files a repository may have before it is worth while
	// to fetch only some.
	fewFiles = 1000
	// mostRounds is how often more folders may be found to be needed.
	mostRounds = 8
	// mostText is the size above which a file is not looked into.
	mostText = 1 << 20
)

// joins are the names of files that join the folders below them to one whole: a
// project below one may need any other, by rules that are not ours to know.
var joins = []string{
	"go.mod", "go.work", "package.json", "pnpm-workspace.yaml", "lerna.json", "deno.json", "pyproject.toml", "uv.lock", "setup.py", "Pipfile",
	"Cargo.toml", "pom.xml", "build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts", "Directory.Build.props",
	"global.json", "WORKSPACE", "MODULE.bazel", "*.sln", "*.slnx",
}

// sparsePlan finds out which folders of a commit a project needs: its own, and
// those that files in it name by a path that leads out of it. In doubt, all.
type sparsePlan struct {
	entries []treeEntry
	folders map[string]bool // of the commit
	project string
	wanted  []string // folders, the project's first
	looked  map[plumbing.Hash]bool
}

// newSparsePlan returns why the plan is to fetch everything, or "".
func newSparsePlan(entries []treeEntry, project string) (p *sparsePlan, all string) {
	p = &sparsePlan{entries: entries, project: project, folders: map[string]bool{}, wanted: []string{project}, looked: map[plumbing.Hash]bool{}}
	for _, e := range entries {
		for dir := path.Dir(e.path); dir != "." && !p.folders[dir]; dir = path.Dir(dir) {
			p.folders[dir] = true
		}
	}
	switch {
	case len(entries) < fewFiles:
		return p, "the repository is small"
	case !p.folders[project]:
		return p, project + " is not a plain folder"
	}
	for _, e := range entries {
		if p.beside(e.path) && slices.ContainsFunc(joins, func(name string) bool { ok, _ := path.Match(name, path.Base(e.path)); return ok }) {
			return p, e.path + " may join the project to other folders"
		}
	}
	return p, ""
}

// beside reports whether a file lies in a folder on the way to one that is
// wanted.
func (p *sparsePlan) beside(file string) bool {
	dir := path.Dir(file)
	return dir == "." || slices.ContainsFunc(p.wanted, func(w string) bool { return within(w, dir) && w != dir })
}

// has reports whether a file or submodule is part of the plan. No plan means all.
func (p *sparsePlan) has(name string) bool { return p == nil || p.inside(name) || p.beside(name) }

func (p *sparsePlan) inside(file string) bool {
	return slices.ContainsFunc(p.wanted, func(w string) bool { return within(file, w) })
}

// within reports whether name is dir or below it.
func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// next returns the files that are wanted and were not looked at yet.
func (p *sparsePlan) next() []treeEntry {
	var files []treeEntry
	for _, e := range p.entries {
		if e.isFile() && !p.looked[e.hash] && p.has(e.path) {
			files = append(files, e)
		}
	}
	for _, e := range files {
		p.looked[e.hash] = true
	}
	return files
}

// count says how many files are wanted.
func (p *sparsePlan) count() int {
	n := 0
	for _, e := range p.entries {
		if p.has(e.path) {
			n++
		}
	}
	return n
}

var (
	upward = regexp.MustCompile(`[\w@.\-/\\]*\.\.[/\\][\w@.\-/\\]*`)
	parent = regexp.MustCompile("[\"'`]\\.\\.[\"'`]")
)

// look adds the folders that a wanted file names, and returns why everything is
// needed, or "".
func (p *sparsePlan) look(e treeEntry, content []byte) (all string) {
	switch {
	case !p.inside(e.path):
		return ""
	case e.mode == modeSymlink:
		return p.add(e, path.Dir(e.path), string(content))
	case len(content) > mostText, bytes.IndexByte(content[:min(len(content), 8000)], 0) >= 0:
		return ""
	case parent.Match(content):
		return e.path + " names the folder above it"
	}
	for _, match := range upward.FindAllString(string(content), -1) {
		to := strings.TrimLeft(strings.ReplaceAll(match, `\`, "/"), "/")
		// What a path is relative to, only the program knows: the file that names
		// it, or the folder that it runs in.
		for _, from := range []string{path.Dir(e.path), p.project} {
			if all = p.add(e, from, to); all != "" {
				return all
			}
		}
	}
	return ""
}

// add takes what a path leads to into the plan.
func (p *sparsePlan) add(by treeEntry, from, to string) (all string) {
	target := path.Join(from, to)
	switch {
	case path.IsAbs(to), target == "..", strings.HasPrefix(target, "../"), p.inside(target):
		return ""
	case target == "." || within(p.project, target):
		return by.path + " leads to a folder above the project"
	}
	if !p.folders[target] {
		target = path.Dir(target) // of a file, or of a module without its ending
		if target == "." || !p.folders[target] || within(p.project, target) || p.inside(target) {
			return "" // files beside the way are there anyway
		}
	}
	p.wanted = append(p.wanted, target)
	return ""
}

// patterns returns what .git/info/sparse-checkout holds for the wanted folders,
// in the form that git calls cone.
func (p *sparsePlan) patterns() string {
	wanted := slices.Sorted(slices.Values(p.wanted))
	wanted = slices.DeleteFunc(wanted, func(w string) bool {
		return slices.ContainsFunc(p.wanted, func(other string) bool { return other != w && within(w, other) })
	})
	onTheWay := map[string]bool{}
	for _, w := range wanted {
		for dir := path.Dir(w); dir != "."; dir = path.Dir(dir) {
			onTheWay[dir] = true
		}
	}
	escape := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)
	var b strings.Builder
	b.WriteString("/*\n!/*/\n")
	for _, dir := range slices.Sorted(maps.Keys(onTheWay)) {
		fmt.Fprintf(&b, "/%[1]s/\n!/%[1]s/*/\n", escape.Replace(dir))
	}
	for _, w := range slices.Compact(wanted) {
		fmt.Fprintf(&b, "/%s/\n", escape.Replace(w))
	}
	return b.String()
}

// maySparse reports whether it may do to fetch only some files.
func (c *checkout) maySparse(s *session, t target) bool {
	dir, _ := cleanRepoDir(c.req.RepoDir)
	return !c.req.Full && c.git != nil && dir != "." && !t.wide && s.can.filter && s.can.again && s.can.shallow && !c.noFilter
}

// fetchSparse fetches the commit with its folders but without its files, and
// then the files that the project needs. It returns no plan when that is all of
// them, which are then still to be fetched.
func (c *checkout) fetchSparse(ctx context.Context, s *session, t target, meta *git.Repository, repo gitRepository, dog *stall.Watch) (*sparsePlan, error) {
	if err := c.fetch(ctx, s, wish{want: []plumbing.Hash{t.want}, shallow: true, filter: "blob:none"}, meta, repo, dog); err != nil {
		return nil, err
	}
	if _, err := c.commit(ctx, repo, t); err != nil {
		return nil, err
	}
	entries, err := repo.entries(ctx, t.commit)
	if err != nil {
		return nil, err
	}
	dir, _ := cleanRepoDir(c.req.RepoDir)
	plan, all := newSparsePlan(entries, filepath.ToSlash(dir))
	for round := 0; all == ""; round++ {
		files := plan.next()
		if len(files) == 0 {
			c.progress.line("only %d of %d files are checked out, those of %s; source.sparse: false gets all", plan.count(), len(entries), strings.Join(plan.wanted, ", "))
			return plan, c.setSparse(plan)
		}
		if round == mostRounds || plan.count() > len(entries)/2 {
			all = "most of them are needed"
			break
		}
		dog.Touch()
		if err := c.fetch(ctx, s, wish{want: hashes(files)}, meta, repo, dog); err != nil {
			c.noFilter, c.refused = true, false // gives out no file by itself
			return nil, err
		}
		if all, err = c.look(ctx, repo, plan, files); err != nil {
			return nil, err
		}
	}
	if len(entries) >= fewFiles {
		c.progress.line("all files are checked out: %s", all)
	}
	dog.Touch()
	return nil, nil
}

func hashes(files []treeEntry) []plumbing.Hash {
	var list []plumbing.Hash
	for _, f := range files {
		list = append(list, f.hash)
	}
	slices.SortFunc(list, func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

// look lets the plan look into files.
func (c *checkout) look(ctx context.Context, repo gitRepository, plan *sparsePlan, files []treeEntry) (all string, err error) {
	byHash := map[plumbing.Hash][]treeEntry{}
	for _, f := range files {
		byHash[f.hash] = append(byHash[f.hash], f)
	}
	err = repo.contents(ctx, hashes(files), func(hash plumbing.Hash, content []byte) {
		for _, f := range byHash[hash] {
			if all == "" {
				all = plan.look(f, content)
			}
		}
	})
	return all, err
}

// setSparse tells git, and whoever uses it later in the job, which files are
// there. The words are those of git's partial clones; the extension that newer
// ones write is left out, because go-git refuses repositories that have it.
func (c *checkout) setSparse(plan *sparsePlan) error {
	dir := filepath.Join(c.dir, ".git")
	if err := os.MkdirAll(filepath.Join(dir, "info"), 0o755); err != nil { //nolint:gosec // as git makes it
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "info", "sparse-checkout"), []byte(plan.patterns()), 0o644); err != nil { //nolint:gosec // as git makes it
		return err
	}
	file, err := os.OpenFile(filepath.Join(dir, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString("[core]\n\tsparseCheckout = true\n\tsparseCheckoutCone = true\n[remote \"origin\"]\n\tpromisor = true\n\tpartialclonefilter = blob:none\n")
	return errors.Join(err, file.Close())
}
