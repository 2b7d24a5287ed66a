// Package knownhosts is what an agent learns of the host keys of SSH servers: a
// known_hosts file to which a key is added once, and in which none is replaced.
//
// What a job says it has met is not taken on its word, because anybody in the job
// could have written it: the book asks the host itself, and keeps the key when it
// sees the same one. The one type is Book.
package knownhosts

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	askTimeout = 10 * time.Second
	mostLines  = 1000 // of a book
	mostAsked  = 8    // hosts that are asked for one job
	mostBytes  = 1 << 20
)

// Book is a file of learned host keys. It may be used by several goroutines.
type Book struct {
	path string
	mu   sync.Mutex
}

// In returns the book that is the file path, which need not exist.
func In(path string) *Book { return &Book{path: path} }

// Text returns the lines of the book.
func (b *Book) Text() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text()
}

func (b *Book) text() (string, error) {
	f, err := os.Open(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("learned host keys: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostBytes))
	if err != nil {
		return "", fmt.Errorf("learned host keys: %w", err)
	}
	return string(text), nil
}

// Learn adds the keys of hosts that the book does not know, out of lines of a
// known_hosts file that a job left. It returns what it added, for the log; the
// error says what it did not, and why.
func (b *Book) Learn(ctx context.Context, lines io.Reader) (added []string, err error) {
	var errs []error
	scanner := bufio.NewScanner(io.LimitReader(lines, mostBytes))
	for asked := 0; scanner.Scan() && asked < mostAsked; {
		line := strings.TrimSpace(scanner.Text())
		if line == "" {
			continue
		}
		asked++
		e, err := parse(line)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fresh, err := b.learn(ctx, e)
		if err != nil {
			errs = append(errs, err)
		}
		if fresh {
			added = append(added, e.String())
		}
	}
	return added, errors.Join(errs...)
}

// entry is one host and one key.
type entry struct {
	host string // as known_hosts has it
	key  ssh.PublicKey
}

func (e entry) String() string {
	return e.host + " " + e.key.Type() + " " + ssh.FingerprintSHA256(e.key)
}

func (e entry) same(o entry) bool { return bytes.Equal(e.key.Marshal(), o.key.Marshal()) }

// parse reads a line for one host, named outright.
func parse(line string) (entry, error) {
	marker, hosts, key, _, _, err := ssh.ParseKnownHosts([]byte(line + "\n"))
	if err != nil || marker != "" || len(hosts) != 1 || strings.ContainsAny(hosts[0], "*?!|, \t") {
		return entry{}, errors.New("a job left a line that is not the key of one host")
	}
	if _, isCertificate := key.(*ssh.Certificate); isCertificate {
		return entry{}, errors.New("a job left the certificate of a host, not its key")
	}
	return entry{hosts[0], key}, nil
}

func (b *Book) learn(ctx context.Context, e entry) (fresh bool, err error) {
	known, err := b.knows(e)
	if known || err != nil {
		return false, err
	}
	// The lock is not held while the host is asked: others read meanwhile.
	if err := ask(ctx, e); err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if known, err := b.look(e); known || err != nil {
		return false, err
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return false, fmt.Errorf("learned host keys: %w", err)
	}
	_, err = fmt.Fprintln(f, knownhosts.Line([]string{e.host}, e.key))
	if err := errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("learned host keys: %w", err)
	}
	return true, nil
}

func (b *Book) knows(e entry) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.look(e)
}

// look reports whether the book has the entry. A host with another key is an
// error: a key is learned once.
func (b *Book) look(e entry) (bool, error) {
	text, err := b.text()
	if err != nil {
		return false, err
	}
	lines := 0
	var other error
	for line := range strings.Lines(text) {
		lines++
		known, err := parse(strings.TrimSpace(line))
		switch {
		case err != nil || known.host != e.host:
		case known.same(e):
			return true, nil
		default:
			other = fmt.Errorf("%s has another host key in %s: if it was changed, remove the line", e.host, b.path)
		}
	}
	if other == nil && lines >= mostLines {
		other = fmt.Errorf("%s is full: no more host keys are learned", b.path)
	}
	return false, other
}

// errSeen ends a handshake once the host's key was seen.
var errSeen = errors.New("seen")

// ask makes sure that the host presents the key of e.
func ask(ctx context.Context, e entry) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address(e.host))
	if err != nil {
		return fmt.Errorf("host key of %s is not kept, as this host cannot be asked from here: %w", e.host, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	matches := false
	algorithms := []string{e.key.Type()}
	if e.key.Type() == ssh.KeyAlgoRSA {
		algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	}
	_, _, _, err = ssh.NewClientConn(conn, address(e.host), &ssh.ClientConfig{
		User: "git", HostKeyAlgorithms: slices.Clone(algorithms), ClientVersion: "SSH-2.0-longshore",
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			matches = e.same(entry{key: key})
			return errSeen
		},
	})
	if matches {
		return nil
	}
	return fmt.Errorf("host key of %s is not kept, as the host presents another one here (%w)", e.host, err)
}

// address turns a host of a known_hosts line into what can be dialled.
func address(host string) string {
	if inner, port, ok := strings.Cut(strings.TrimPrefix(host, "["), "]:"); ok && host[0] == '[' {
		return net.JoinHostPort(inner, port)
	}
	return net.JoinHostPort(host, "22")
}
