package gitsrc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
)

// line is a connection to the git process on the other side.
type line interface {
	// hello returns what the other side says first.
	hello(ctx context.Context) (io.ReadCloser, error)
	// ask sends a message and returns what is said in answer to it.
	ask(ctx context.Context, message []byte) (io.ReadCloser, error)
	// lastWords waits for the other side's end and returns what it said beside
	// the protocol, where that is possible.
	lastWords() string
	Close() error
}

// session is one conversation with the git process on the other side: first
// hello, then which refs it has, then packs. Two versions of git's protocol are
// spoken; the server picks.
type session struct {
	line
	can   abilities
	talks protocol
}

// protocol is a version of git's protocol.
type protocol interface {
	// refs returns the refs that begin with one of the prefixes, and perhaps others.
	refs(ctx context.Context, prefixes []string) (*refList, error)
	// pack asks for objects.
	pack(ctx context.Context, w wish) (*answer, error)
}

// abilities are what a server says that it can do.
type abilities struct {
	anyCommit bool // gives out commits that no ref points to
	final     bool // when it gives out no such commit, it has none
	shallow   bool // gives out a commit without its history
	filter    bool // leaves out the kinds of objects that it is told to
	again     bool // answers more than one request for a pack
	prefixes  bool // lists the refs that it is asked for only
}

// wish says which objects to ask for.
type wish struct {
	want    []plumbing.Hash
	shallow bool            // without history
	depth   int             // how much history all the same, in commits; 0 is 1
	have    []plumbing.Hash // commits that are there already, without their history
	filter  string          // what to leave out
}

// answer is a pack on its way, which comes after everything else.
type answer struct {
	io.Closer
	shallow []plumbing.Hash // the commits whose history was left out
	banded  bool            // the pack comes in bands
	pack    *bufio.Reader
}

// refList is which refs the server has.
type refList struct {
	head     *plumbing.Hash
	headName string // the ref that HEAD stands for, where that is known
	names    map[string]plumbing.Hash
	peeled   map[string]plumbing.Hash // what annotated tags stand for
}

func (c *checkout) open(ctx context.Context, touch func()) (*session, error) {
	to, err := c.connect(ctx, touch)
	if err != nil {
		return nil, err
	}
	s := &session{line: to}
	if err := s.begin(ctx); err != nil {
		_ = to.Close()
		return nil, err
	}
	return s, nil
}

func (c *checkout) connect(ctx context.Context, touch func()) (line, error) {
	switch {
	case c.at.web():
		return c.openHTTP(touch), nil
	case c.at.scheme == "git":
		return c.openGit(ctx, touch)
	default:
		return c.openSSH(ctx, touch)
	}
}

// begin listens to the other side's hello and finds out what it speaks.
func (s *session) begin(ctx context.Context) error {
	first, err := s.hello(ctx)
	if err != nil {
		return err
	}
	defer first.Close()
	in := bufio.NewReaderSize(first, 64<<10)
	if isVersion2(in) {
		v2, err := readVersion2(in, s.line)
		if err != nil {
			return err
		}
		s.talks, s.can = v2, v2.abilities()
		return nil
	}
	v0, err := readVersion0(in, s.line)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// A server that does not have or give out the repository says so beside
		// the protocol, and then ends.
		if said := s.lastWords(); said != "" {
			return &remoteError{said: said}
		}
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	s.talks, s.can = v0, v0.abilities()
	return nil
}

// isVersion2 looks at the beginning of a hello.
func isVersion2(in *bufio.Reader) bool {
	const service, version = "001e# service=git-upload-pack\n0000", "000eversion 2\n"
	head, _ := in.Peek(len(version))
	if string(head) == version {
		return true
	}
	if !bytes.HasPrefix(head, []byte("001e#")) {
		return false
	}
	head, _ = in.Peek(len(service) + len(version))
	return string(head) == service+version
}

// joined gives what was read ahead of a stream back to it.
type joined struct {
	io.Reader
	io.Closer
}
