package knownhosts

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// listen is an SSH server that lets nobody in.
func listen(t *testing.T, key ssh.Signer) (host string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errSeen }}
	config.AddHostKey(key)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _, _, _ = ssh.NewServerConn(conn, config)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return knownhosts.Normalize(l.Addr().String())
}

func line(host string, key ssh.Signer) string {
	return knownhosts.Line([]string{host}, key.PublicKey())
}

func TestAKeyIsLearnedOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "known_hosts")
	b, key := In(path), newKey(t)
	host := listen(t, key)
	learn := func(lines ...string) ([]string, error) {
		return b.Learn(context.Background(), strings.NewReader(strings.Join(lines, "\n")))
	}
	added, err := learn(line(host, key), "", line(host, key))
	if len(added) != 1 || err != nil || !strings.Contains(added[0], "SHA256:") {
		t.Fatalf("Learn() = %q, %v", added, err)
	}
	text, err := b.Text()
	if err != nil || text != line(host, key)+"\n" {
		t.Errorf("Text() = %q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	other := newKey(t)
	if added, err := learn(line(host, other)); len(added) != 0 || err == nil || !strings.Contains(err.Error(), "another host key") {
		t.Errorf("another key: %q, %v", added, err)
	}
}

// TestTheHostIsAsked: what a job says is not believed.
func TestTheHostIsAsked(t *testing.T) {
	t.Parallel()
	key, other := newKey(t), newKey(t)
	host := listen(t, key)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := knownhosts.Normalize(l.Addr().String())
	l.Close()
	for name, text := range map[string]string{
		"a key that the host does not have": line(host, other),
		"a host that does not answer":       line(nobody, key),
		"a pattern":                         "* " + strings.SplitN(line(host, key), " ", 2)[1],
		"an authority":                      "@cert-authority " + line(host, key),
		"a revocation":                      "@revoked " + line(host, key),
		"two hosts":                         knownhosts.Line([]string{host, "github.com"}, key.PublicKey()),
		"a hashed host":                     knownhosts.HashHostname(host) + " " + strings.SplitN(line(host, key), " ", 2)[1],
		"no line":                           "hello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := In(filepath.Join(t.TempDir(), "known_hosts"))
			added, err := b.Learn(t.Context(), strings.NewReader(text))
			if len(added) != 0 || err == nil {
				t.Errorf("Learn() = %q, %v, want an error", added, err)
			}
			if text, err := b.Text(); text != "" || err != nil {
				t.Errorf("Text() = %q, %v", text, err)
			}
		})
	}
}
