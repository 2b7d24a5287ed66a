package gitsrc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// version2 is git's present protocol: the server lists the refs that it is
// asked for, gives out any commit that it has, and answers again and again.
type version2 struct {
	line line
	caps map[string]string
}

func readVersion2(in *bufio.Reader, to line) (*version2, error) {
	v := &version2{line: to, caps: map[string]string{}}
	for range 2 { // over HTTP the name of the service comes first, by itself
		_, err := readLines(in, func(text string) error {
			name, value, _ := strings.Cut(text, "=")
			v.caps[name] = value
			return nil
		})
		if err != nil {
			return nil, err
		}
		if _, ok := v.caps["version 2"]; ok {
			break
		}
	}
	if format, ok := v.caps["object-format"]; ok && format != "sha1" {
		return nil, problem(KindRequest, "repositories with "+strings.ToUpper(format)+" hashes are not supported", "")
	}
	return v, nil
}

func (v *version2) abilities() abilities {
	fetch := strings.Fields(v.caps["fetch"])
	return abilities{
		anyCommit: true,
		// Other servers than git's own may give out only what a ref reaches
		// directly.
		final:   strings.HasPrefix(v.caps["agent"], "git/"),
		shallow: slices.Contains(fetch, "shallow"), filter: slices.Contains(fetch, "filter"),
		again: true, prefixes: true,
	}
}

// command begins a message.
func (v *version2) command(name string) *bytes.Buffer {
	b := &bytes.Buffer{}
	writeLine(b, "command="+name)
	if _, ok := v.caps["agent"]; ok {
		writeLine(b, "agent="+strings.ReplaceAll(agent, " ", "-"))
	}
	if format, ok := v.caps["object-format"]; ok {
		writeLine(b, "object-format="+format)
	}
	b.WriteString(delimiterMark)
	return b
}

func (v *version2) refs(ctx context.Context, prefixes []string) (*refList, error) {
	message := v.command("ls-refs")
	writeLine(message, "peel")
	writeLine(message, "symrefs")
	for _, prefix := range prefixes {
		writeLine(message, "ref-prefix", prefix)
	}
	message.WriteString(flushMark)
	said, err := v.line.ask(ctx, message.Bytes())
	if err != nil {
		return nil, err
	}
	defer said.Close()
	list := &refList{names: map[string]plumbing.Hash{}, peeled: map[string]plumbing.Hash{}}
	kind, err := readLines(bufio.NewReader(said), func(text string) error { return list.add(strings.Fields(text)) })
	if err == nil && kind != packetFlush {
		err = errNotGit
	}
	return list, unexpected(err)
}

// add takes one line of a list: hash, name, and what more is said of the ref.
func (l *refList) add(words []string) error {
	if len(words) < 2 || !fullHash.MatchString(words[0]) {
		return errNotGit
	}
	hash, name := plumbing.NewHash(words[0]), words[1]
	if name == "HEAD" {
		l.head = &hash
	} else {
		l.names[name] = hash
	}
	for _, word := range words[2:] {
		if target, ok := strings.CutPrefix(word, "symref-target:"); ok && name == "HEAD" {
			l.headName, l.names[target] = target, hash
		}
		if peeled, ok := strings.CutPrefix(word, "peeled:"); ok {
			l.peeled[name] = plumbing.NewHash(peeled)
		}
	}
	return nil
}

func (v *version2) pack(ctx context.Context, w wish) (*answer, error) {
	message := v.command("fetch")
	writeLine(message, "ofs-delta")
	if w.shallow {
		writeLine(message, "deepen", strconv.Itoa(max(w.depth, 1)))
	}
	if len(w.have) > 0 {
		writeLine(message, "thin-pack")
	}
	for _, hash := range w.have {
		writeLine(message, "shallow", hash.String())
	}
	if w.filter != "" {
		writeLine(message, "filter", w.filter)
	}
	for _, hash := range w.want {
		writeLine(message, "want", hash.String())
	}
	for _, hash := range w.have {
		writeLine(message, "have", hash.String())
	}
	writeLine(message, "done")
	message.WriteString(flushMark)
	said, err := v.line.ask(ctx, message.Bytes())
	if err != nil {
		return nil, err
	}
	a := &answer{Closer: said, banded: true, pack: bufio.NewReaderSize(said, 64<<10)}
	if err := a.sections(); err != nil {
		return nil, errors.Join(unexpected(err), said.Close())
	}
	return a, nil
}

// sections reads what comes before the pack.
func (a *answer) sections() error {
	for {
		data, kind, err := readPacket(a.pack)
		switch {
		case err != nil:
			return err
		case kind != packetData:
			return errNotGit
		}
		switch strings.TrimSuffix(string(data), "\n") {
		case "packfile":
			return nil
		case "shallow-info":
			_, err := readLines(a.pack, func(text string) error {
				if hash, ok := strings.CutPrefix(text, "shallow "); ok {
					a.shallow = append(a.shallow, plumbing.NewHash(hash))
				}
				return nil
			})
			if err != nil {
				return err
			}
		default: // nothing that was asked for
			if _, err := readLines(a.pack, func(string) error { return nil }); err != nil {
				return err
			}
		}
	}
}

// unexpected says that an end in the middle of an answer is not a good one.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
