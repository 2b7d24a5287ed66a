package cachestore

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/longshore-run/longshore/internal/api"
)

// MaxKey is the most characters that a key may have. A file system that takes
// names of 255 bytes has room for it and for what the store adds.
const MaxKey = 200

var keyPattern = regexp.MustCompile(fmt.Sprintf(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,%d}$`, MaxKey-1))

// CheckKey says what is wrong with a key, or with the prefix of one.
func CheckKey(key string) error {
	if !keyPattern.MatchString(key) {
		return fmt.Errorf("want 1 to %d letters, digits, dots, hyphens and underscores, and no dot at the start", MaxKey)
	}
	return nil
}

// Names of objects: cache/ORGANIZATION/PROJECT/STACK/KEY.tar.zst is an entry,
// and the same with .used the marker of when it was last used.
const (
	root       = "cache/"
	entryEnd   = ".tar.zst"
	markerEnd  = ".used"
	sharedPart = "=shared" // in the place of the stack; no name is escaped to that
)

// Owner is the stack that entries belong to.
type Owner struct{ Organization, Project, Stack string }

func (o Owner) check() error {
	for _, part := range []string{o.Organization, o.Project, o.Stack} {
		if part == "" || part == "." || part == ".." || len(part) > 200 {
			return fmt.Errorf("%q is no part of a stack's name", part)
		}
	}
	return nil
}

// project returns the prefix of what belongs to a project.
func project(organization, name string) string {
	return root + part(organization) + "/" + part(name) + "/"
}

// part returns a name as a part of an object's name: all but letters, digits,
// dots, hyphens and underscores is escaped.
func part(name string) string { return url.QueryEscape(name) }

// projectOf returns the prefix of the project that an object belongs to, and
// whether it is an object of the store at all.
func projectOf(name string) (string, bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 5 || parts[0]+"/" != root {
		return "", false
	}
	return strings.Join(parts[:3], "/") + "/", true
}

// managerOf returns the first word of a key, by which entries are counted.
func managerOf(key string) string {
	word, _, _ := strings.Cut(key, "-")
	if api.KnownManager(word) {
		return word
	}
	return "other" // whoever has a job's token can make up words
}
