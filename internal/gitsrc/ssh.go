package gitsrc

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/longshore-run/longshore/internal/stall"
)

// stream is one connection in both directions.
type stream struct {
	in    io.Writer
	out   io.Reader
	last  func() string
	close func() error
}

func (s *stream) hello(context.Context) (io.ReadCloser, error) { return io.NopCloser(s.out), nil }

func (s *stream) ask(_ context.Context, message []byte) (io.ReadCloser, error) {
	if _, err := s.in.Write(message); err != nil {
		return nil, err
	}
	return io.NopCloser(s.out), nil
}

func (s *stream) lastWords() string { return s.last() }

func (s *stream) Close() error { return s.close() }

// dial connects; the connection breaks as soon as ctx ends.
func (c *checkout) dial(ctx context.Context, touch func()) (net.Conn, func() bool, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", c.at.address())
	if err != nil {
		return nil, nil, err
	}
	touch()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return touchedConn{conn, touch}, stop, nil
}

type touchedConn struct {
	net.Conn
	touch func()
}

func (c touchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.touch()
	}
	return n, err
}

// openGit speaks git:// (git daemon): no encryption, no credentials.
func (c *checkout) openGit(ctx context.Context, touch func()) (line, error) {
	conn, stop, err := c.dial(ctx, touch)
	if err != nil {
		return nil, err
	}
	request := "git-upload-pack " + c.at.path + "\x00host=" + c.at.host + "\x00\x00" + version2Wanted + "\x00"
	if err := pktline.NewEncoder(conn).EncodeString(request); err != nil {
		stop()
		return nil, errors.Join(err, conn.Close())
	}
	return &stream{
		in: conn, out: conn,
		last:  func() string { return "" },
		close: func() error { stop(); return conn.Close() },
	}, nil
}

// openSSH runs git-upload-pack on the other side.
func (c *checkout) openSSH(ctx context.Context, touch func()) (line, error) {
	client, closeAll, err := c.login(ctx, touch)
	if err != nil {
		return nil, err
	}
	s, err := startUploadPack(client, c.at.path)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	s.close = closeAll
	return s, nil
}

// runSSH runs a command on the other side and returns what it prints.
func (c *checkout) runSSH(ctx context.Context, command string) ([]byte, error) {
	ctx, dog := stall.New(ctx, c.stall, errStalled)
	defer dog.Stop()
	client, closeAll, err := c.login(ctx, dog.Touch)
	if err != nil {
		return nil, err
	}
	defer func() { _ = closeAll() }()
	run, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	words := &tail{}
	run.Stderr = words
	out, err := run.Output(command)
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return nil, &remoteError{said: words.String()}
	}
	return out, err
}

// login connects. The connection ends with ctx, or with what is returned.
func (c *checkout) login(ctx context.Context, touch func()) (*ssh.Client, func() error, error) {
	config, state, err := c.sshConfig()
	if err != nil {
		return nil, nil, err
	}
	conn, stop, err := c.dial(ctx, touch)
	if err != nil {
		return nil, nil, err
	}
	transport, channels, requests, err := ssh.NewClientConn(conn, c.at.address(), config)
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, nil, c.explainHandshake(err, state)
	}
	client := ssh.NewClient(transport, channels, requests)
	return client, func() error {
		_ = client.Close()
		_ = client.Wait() // its goroutines are gone; the error is our own closing
		stop()
		return nil
	}, nil
}

func startUploadPack(client *ssh.Client, path string) (*stream, error) {
	run, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	in, err := run.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := run.StdoutPipe()
	if err != nil {
		return nil, err
	}
	words := &tail{}
	run.Stderr = words
	_ = run.Setenv("GIT_PROTOCOL", version2Wanted) // not every server lets it through: then it is the first version
	if err := run.Start("git-upload-pack " + shellQuote(path)); err != nil {
		return nil, err
	}
	return &stream{
		in: in, out: out,
		last: func() string {
			var exit *ssh.ExitError
			if err := run.Wait(); errors.As(err, &exit) && words.String() == "" {
				return fmt.Sprintf("git-upload-pack ended with exit code %d", exit.ExitStatus())
			}
			return words.String()
		},
	}, nil
}

// shellQuote quotes s for the shell on the other side.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// tail keeps the first few KiB of what the other side says.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 4096 - t.b.Len(); room > 0 {
		t.b.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.b.String())
}

// learnHost notes the key of a host that was not known.
func (c *checkout) learnHost(address string, key ssh.PublicKey) error {
	c.progress.line("%s was not known; its host key %s, %s, is trusted from now on (source.ssh.accept_new_hosts)", address, key.Type(), ssh.FingerprintSHA256(key))
	if err := os.MkdirAll(filepath.Dir(c.req.LearnHosts), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(c.req.LearnHosts, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, knownhosts.Line([]string{knownhosts.Normalize(address)}, key))
	return errors.Join(err, file.Close())
}

// handshake is how far the SSH handshake came.
type handshake struct{ hostTrusted bool }

func (c *checkout) sshConfig() (*ssh.ClientConfig, *handshake, error) {
	var methods []ssh.AuthMethod
	switch {
	case len(c.cred.SSHKey) > 0:
		signer, err := parseKey(c.cred.SSHKey, c.cred.SSHPassphrase)
		if err != nil {
			return nil, nil, err
		}
		methods = append(methods, ssh.PublicKeys(signer))
	case c.cred.Password != "":
		methods = append(methods, ssh.Password(c.cred.Password))
	default:
		check := "Set gitAuth.sshAuth.sshPrivateKey."
		if c.req.Auth.Token != "" {
			check = "An access token works over HTTPS only: use the https:// URL, or set gitAuth.sshAuth.sshPrivateKey."
		}
		return nil, nil, problem(KindKeyUnreadable, "an SSH URL needs a private key and none was given", check)
	}
	files := c.req.KnownHosts
	if c.req.LearnHosts != "" {
		files = append(slices.Clone(files), c.req.LearnHosts)
	}
	keys, err := readHostKeys(files)
	if err != nil {
		return nil, nil, err
	}
	if c.req.LearnHosts != "" {
		keys.learn = c.learnHost
	}
	user := c.at.user
	if user == "" {
		user = c.cred.Username
	}
	if user == "" {
		user = "git"
	}
	state := &handshake{}
	return &ssh.ClientConfig{
		User: user,
		Auth: methods,
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			err := keys.check(host, remote, key)
			state.hostTrusted = err == nil
			return err
		},
		HostKeyAlgorithms: keys.algorithms(c.at.address()),
		ClientVersion:     "SSH-2.0-longshore",
		Timeout:           dialTimeout,
	}, state, nil
}

// explainHandshake says why an SSH connection was not made. The library has no
// type for "none of the keys is taken": it is what is left when the host key was
// trusted and the connection did not break.
func (c *checkout) explainHandshake(err error, state *handshake) error {
	var known *Error
	if errors.As(err, &known) || isNetwork(err) || !state.hostTrusted {
		return err
	}
	what := "key"
	if len(c.cred.SSHKey) == 0 {
		what = "password"
	}
	return &Error{
		Kind: KindKeyRefused, What: "the server does not accept the " + what, Said: "Permission denied (" + cutPrefixes(err) + ")",
		Check: "Check that the public half of the key is registered with " + c.at.host + " for an account or as a deploy key that may read this repository, and that the user name in the URL is right (mostly git).",
	}
}

// normalKey gives a private key its newlines back.
func normalKey(key []byte) []byte {
	key = bytes.ReplaceAll(key, []byte("\r\n"), []byte("\n"))
	if !bytes.Contains(bytes.TrimSpace(key), []byte("\n")) {
		key = bytes.ReplaceAll(key, []byte(`\n`), []byte("\n"))
	}
	return append(bytes.TrimSpace(key), '\n')
}

// parseKey reads a private key, also one that lost its last newline or had its
// newlines written as \n on the way through a form or a variable.
func parseKey(key []byte, passphrase string) (ssh.Signer, error) {
	key = normalKey(key)
	signer, err := ssh.ParsePrivateKey(key)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		if passphrase == "" {
			return nil, problem(KindKeyUnreadable, "the SSH key is encrypted and no passphrase was given", "Set gitAuth.sshAuth.password to its passphrase.")
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(key, []byte(passphrase))
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, problem(KindKeyUnreadable, "the passphrase does not open the SSH key", "Check gitAuth.sshAuth.password.")
		}
	}
	if err != nil {
		// The library's text is not shown: it might quote the key.
		return nil, problem(KindKeyUnreadable, "the SSH key cannot be read", "It must be a private key (not the .pub file) in OpenSSH or PEM form: ed25519, RSA or ECDSA.")
	}
	return signer, nil
}
