package gitsrc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// prepareDir makes sure that dir is an empty directory and returns how to leave
// it as it was.
func prepareDir(dir string) (undo func() error, err error) {
	if dir == "" {
		return nil, problem(KindRequest, "no work directory is named", "Set --workDir.")
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		top := firstMissing(dir)
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the steps may run as another user
			return nil, problem(KindDir, "the work directory cannot be made: "+err.Error(), "Check its permissions and the free space.")
		}
		return func() error { return os.RemoveAll(top) }, nil
	case err != nil:
		return nil, problem(KindDir, "the work directory cannot be used: "+err.Error(), "It must be a directory that this user may write.")
	case len(entries) > 0:
		return nil, problem(KindDir, fmt.Sprintf("the work directory %s is not empty (it holds %s)", dir, entries[0].Name()),
			"Source is put into an empty directory only. Remove what is there, or name another one.")
	}
	return func() error { return emptyDir(dir) }, nil
}

// firstMissing returns the topmost directory of dir's path that does not exist.
func firstMissing(dir string) string {
	dir = filepath.Clean(dir)
	for {
		parent := filepath.Dir(dir)
		if _, err := os.Lstat(parent); err == nil || parent == dir {
			return dir
		}
		dir = parent
	}
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// cleanRepoDir returns repoDir as a relative path below the repository's root,
// or says why it is none. It looks at the text alone.
func cleanRepoDir(repoDir string) (string, error) {
	slashed := strings.ReplaceAll(repoDir, `\`, "/")
	switch {
	case strings.ContainsRune(repoDir, 0):
		return "", problem(KindPath, "repoDir holds a NUL byte", "Check sourceContext.git.repoDir.")
	case strings.HasPrefix(slashed, "/"):
		return "", problem(KindPath, fmt.Sprintf("repoDir %q is absolute", repoDir), "Write it relative to the root of the repository, for instance infra/prod.")
	}
	clean := filepath.Clean(filepath.FromSlash(repoDir))
	if !filepath.IsLocal(clean) {
		return "", problem(KindPath, fmt.Sprintf("repoDir %q leaves the repository", repoDir), "Write it without .. and relative to the root of the repository.")
	}
	if first, _, _ := strings.Cut(filepath.ToSlash(clean), "/"); strings.EqualFold(first, ".git") {
		return "", problem(KindPath, fmt.Sprintf("repoDir %q is git's own directory", repoDir), "Name the folder of Pulumi.yaml.")
	}
	return clean, nil
}

// checkRepoDir makes sure that repoDir is a directory of the checkout in root,
// and that no symbolic link on the way leads out of it.
func checkRepoDir(root, repoDir string) error {
	dir, err := cleanRepoDir(repoDir)
	if err != nil {
		return err
	}
	realRoot, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	realDir, err := filepath.EvalSymlinks(filepath.Join(realRoot, dir))
	if err == nil {
		if rel, relErr := filepath.Rel(realRoot, realDir); relErr != nil || !filepath.IsLocal(rel) {
			return problem(KindPath, fmt.Sprintf("repoDir %q is a symbolic link that leads out of the repository", repoDir), "Name a folder of the repository.")
		}
		info, statErr := os.Stat(realDir)
		if statErr == nil && info.IsDir() {
			return nil
		}
		return problem(KindPath, fmt.Sprintf("repoDir %q is a file, not a folder", repoDir), "Name the folder of Pulumi.yaml. "+projects(realRoot))
	}
	return problem(KindPath, fmt.Sprintf("the repository has no folder %q at this commit", repoDir), "Check sourceContext.git.repoDir. "+projects(realRoot))
}

// liftFolder makes what the folder repoDir of dir holds the whole of dir.
func liftFolder(dir, repoDir string) error {
	clean, err := cleanRepoDir(repoDir)
	if err != nil || clean == "." {
		return err
	}
	folder, err := filepath.EvalSymlinks(filepath.Join(dir, clean))
	if err != nil {
		return err
	}
	aside, err := os.MkdirTemp(filepath.Dir(dir), ".longshore-lift-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(aside)
	kept := filepath.Join(aside, "kept")
	if err := os.Rename(folder, kept); err != nil {
		return err
	}
	if err := emptyDir(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(kept)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.Rename(filepath.Join(kept, entry.Name()), filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// projects says where in root there are Pulumi projects.
func projects(root string) string {
	var found []string
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(root, path)
		switch {
		case err != nil || relErr != nil:
			return nil //nolint:nilerr // what cannot be read cannot be suggested
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules" || strings.Count(rel, string(filepath.Separator)) >= 4):
			return filepath.SkipDir
		case entry.Name() == "Pulumi.yaml" || entry.Name() == "Pulumi.yml":
			if found = append(found, filepath.ToSlash(filepath.Dir(rel))); len(found) == 5 {
				return filepath.SkipAll
			}
		}
		return nil
	})
	if len(found) == 0 {
		return "No Pulumi.yaml was found near the root."
	}
	return "Pulumi.yaml is in: " + strings.Join(found, ", ") + "."
}
