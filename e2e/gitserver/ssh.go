package gitserver

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSH is a running OpenSSH server that serves every repository of the machine
// its one user may read, to whoever holds a key that was made with NewKey.
type SSH struct {
	Address   string // host:port
	KnownHost string // the line for known_hosts

	dir  string
	cmd  *exec.Cmd
	done chan struct{}
}

// StartSSH starts sshd with everything it keeps below dir. It runs as the
// calling user, which is also the user to log in as.
func StartSSH(ctx context.Context, sshd, dir string) (*SSH, error) {
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil && os.Geteuid() == 0 { //nolint:gosec // sshd asks for exactly this mode
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	s := &SSH{dir: dir, done: make(chan struct{})}
	hostKey, public, err := newKey("")
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	s.Address = listener.Addr().String()
	listener.Close()
	host, port, _ := net.SplitHostPort(s.Address)
	s.KnownHost = fmt.Sprintf("[%s]:%s %s", host, port, public)
	configuration := strings.Join([]string{
		"ListenAddress " + s.Address,
		"HostKey " + filepath.Join(dir, "host_key"),
		"AuthorizedKeysFile " + filepath.Join(dir, "authorized_keys"),
		"PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no",
		"KbdInteractiveAuthentication no", "PermitRootLogin yes", "LogLevel VERBOSE",
	}, "\n") + "\n"
	for name, content := range map[string]string{"host_key": hostKey, "authorized_keys": "", "sshd_config": configuration} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return nil, fmt.Errorf("start sshd: %w", err)
		}
	}
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	log, err := os.Create(filepath.Join(dir, "sshd.log"))
	if err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	return s, s.ready(ctx)
}

func (s *SSH) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.done:
			log, _ := os.ReadFile(filepath.Join(s.dir, "sshd.log"))
			return fmt.Errorf("sshd ended:\n%s", log)
		case <-ctx.Done():
			s.Close()
			return fmt.Errorf("sshd does not answer: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// NewKey makes a key that may log in, and returns its private half in OpenSSH
// form, encrypted when there is a passphrase.
func (s *SSH) NewKey(passphrase string) (private string, err error) {
	private, public, err := newKey(passphrase)
	if err != nil {
		return "", fmt.Errorf("make an SSH key: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(s.dir, "authorized_keys"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer file.Close()
	_, err = fmt.Fprintln(file, public)
	return private, err
}

// URL is the clone URL of a repository directory for the given user.
func (s *SSH) URL(user, repository string) string {
	return "ssh://" + user + "@" + s.Address + repository
}

// Close ends the server.
func (s *SSH) Close() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

func newKey(passphrase string) (private, public string, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		return "", "", err
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub))), nil
}
