package gitcred_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/longshore-run/longshore/internal/gitcred"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secrets remembers what it was told to hide.
type secrets struct {
	mu   sync.Mutex
	told []string
}

func (s *secrets) add(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, secret)
}

func listen(t *testing.T, dir string) (*gitcred.Server, *secrets) {
	t.Helper()
	hidden := &secrets{}
	s, err := gitcred.Listen(dir, hidden.add)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, hidden
}

func ask(t *testing.T, s *gitcred.Server, env map[string]string, question ...string) string {
	t.Helper()
	var out bytes.Buffer
	socket := ""
	if s != nil {
		socket = s.Socket()
	}
	err := gitcred.Help(t.Context(), "get", socket, func(name string) string { return env[name] }, strings.NewReader(strings.Join(question, "\n")+"\n\n"), &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestOnlyTheServerItIsForIsAnswered: scheme, host and port must be right.
func TestOnlyTheServerItIsForIsAnswered(t *testing.T) {
	t.Parallel()
	s, hidden := listen(t, t.TempDir())
	for _, c := range []gitcred.Credential{
		{Scheme: "https", Host: "git.example.com", Username: "x-access-token", Password: "token-1", AnyUser: true},
		{Scheme: "http", Host: "127.0.0.1:8080", Username: "me", Password: "password-2"},
		{Scheme: "http", Host: "plain.example.com", Username: "me", Password: "password-3"},
		{Scheme: "https", Host: "broken.example.com", Username: "me", Password: "two\nlines"},
	} {
		if err := gitcred.Put(t.Context(), s.Socket(), c); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		question []string
		env      map[string]string
		want     string
	}{
		"the same server":             {question: []string{"protocol=https", "host=git.example.com"}, want: "username=x-access-token\npassword=token-1\n"},
		"in other letters":            {question: []string{"protocol=https", "host=Git.Example.com", "path=org/repo"}, want: "username=x-access-token\npassword=token-1\n"},
		"a token goes with any name":  {question: []string{"protocol=https", "host=git.example.com", "username=git"}, want: "username=git\npassword=token-1\n"},
		"not over http":               {question: []string{"protocol=http", "host=git.example.com"}},
		"not at another port":         {question: []string{"protocol=https", "host=git.example.com:8443"}},
		"not at a host below":         {question: []string{"protocol=https", "host=git.example.com.evil.org"}},
		"a server with a port":        {question: []string{"protocol=http", "host=127.0.0.1:8080"}, want: "username=me\npassword=password-2\n"},
		"not for another user":        {question: []string{"protocol=http", "host=127.0.0.1:8080", "username=you"}},
		"not at another of its ports": {question: []string{"protocol=http", "host=127.0.0.1:80800"}},
		"https in place of http":      {question: []string{"protocol=https", "host=plain.example.com"}, want: "username=me\npassword=password-3\n"},
		"what git's protocol cannot":  {question: []string{"protocol=https", "host=broken.example.com"}},
		"nothing":                     {question: nil},
		"GITHUB_TOKEN": {
			question: []string{"protocol=https", "host=github.com"}, env: map[string]string{"GITHUB_TOKEN": "gh"},
			want: "username=x-access-token\npassword=gh\n",
		},
		"GITHUB_TOKEN of another GitHub": {
			question: []string{"protocol=https", "host=github.example.com"},
			env:      map[string]string{"GITHUB_TOKEN": "gh", "GITHUB_SERVER_URL": "https://github.example.com"}, want: "username=x-access-token\npassword=gh\n",
		},
		"GITHUB_TOKEN not elsewhere":    {question: []string{"protocol=https", "host=gitlab.com"}, env: map[string]string{"GITHUB_TOKEN": "gh"}},
		"GITHUB_TOKEN not in the clear": {question: []string{"protocol=http", "host=github.com"}, env: map[string]string{"GITHUB_TOKEN": "gh"}},
		"the job's own wins over GITHUB_TOKEN": {
			question: []string{"protocol=https", "host=git.example.com"},
			env:      map[string]string{"GITHUB_TOKEN": "gh", "GITHUB_SERVER_URL": "https://git.example.com"}, want: "username=x-access-token\npassword=token-1\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ask(t, s, tc.env, tc.question...); got != tc.want {
				t.Errorf("answer = %q, want %q", got, tc.want)
			}
		})
	}
	if got := ask(t, nil, map[string]string{"GITHUB_TOKEN": "gh"}, "protocol=https", "host=github.com"); got == "" {
		t.Error("without a server GITHUB_TOKEN should be the answer")
	}
	if want := []string{"token-1", "password-2", "password-3"}; !slices.Equal(hidden.told, want) {
		t.Errorf("to be hidden: %q, want %q", hidden.told, want)
	}
}

// TestAfterTheJobThereIsNothing: no socket, no file, no answer.
func TestAfterTheJobThereIsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := gitcred.Listen(dir, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := gitcred.Put(t.Context(), s.Socket(), gitcred.Credential{Scheme: "https", Host: "h", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	if err := gitcred.PutKey(t.Context(), s.Socket(), gitcred.Key{PEM: newKey(t)}); err != nil {
		t.Fatal(err)
	}
	idle, err := net.Dial("unix", s.AgentSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	s.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := gitcred.Help(t.Context(), "get", s.Socket(), os.Getenv, strings.NewReader("protocol=https\nhost=h\n\n"), new(bytes.Buffer)); err == nil {
		t.Error("somebody still answers")
	}
}

func newKey(t *testing.T) []byte {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

// TestTheAgentSigns: ssh gets signatures, and no key.
func TestTheAgentSigns(t *testing.T) {
	t.Parallel()
	s, _ := listen(t, t.TempDir())
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	key := gitcred.Key{PEM: pem.EncodeToMemory(block), Passphrase: "wrong", KnownHosts: "host ssh-ed25519 AAAA\n"}
	if err := gitcred.PutKey(t.Context(), s.Socket(), key); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("PutKey() with a wrong passphrase = %v", err)
	}
	key.Passphrase = "open sesame"
	if err := gitcred.PutKey(t.Context(), s.Socket(), key); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", s.AgentSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	signers, err := agent.NewClient(conn).Signers()
	if err != nil || len(signers) != 1 {
		t.Fatalf("Signers() = %v, %v", signers, err)
	}
	signature, err := signers[0].Sign(rand.Reader, []byte("data"))
	if err != nil || signers[0].PublicKey().Verify([]byte("data"), signature) != nil {
		t.Errorf("Sign() = %v", err)
	}
	if text, err := os.ReadFile(s.KnownHosts()); err != nil || string(text) != key.KnownHosts {
		t.Errorf("known hosts: %q, %v", text, err)
	}
}

// TestEnviron: what the job has of its own stays.
func TestEnviron(t *testing.T) {
	t.Parallel()
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep", 30))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	s, _ := listen(t, deep) // too long a path for a socket
	if strings.HasPrefix(s.Socket(), deep) || len(s.Socket()) > 100 {
		t.Errorf("socket %s", s.Socket())
	}
	names := func(env map[string]string, ssh bool) string {
		var names []string
		for name, value := range s.Environ(env, "/bin/it's", ssh) {
			names = append(names, name)
			if strings.HasPrefix(name, "GIT_CONFIG_VALUE") && value != fmt.Sprintf(`!'/bin/it'\''s' credential --socket='%s'`, s.Socket()) {
				t.Errorf("%s = %s", name, value)
			}
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	for _, tc := range []struct {
		env  map[string]string
		ssh  bool
		want string
	}{
		{want: "GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0"},
		{env: map[string]string{"GIT_CONFIG_COUNT": "2"}, want: "GIT_CONFIG_COUNT GIT_CONFIG_KEY_2 GIT_CONFIG_VALUE_2"},
		{env: map[string]string{"GIT_CONFIG_COUNT": "many"}, want: ""},
		{ssh: true, want: "GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0 GIT_SSH_COMMAND SSH_AUTH_SOCK"},
		{ssh: true, env: map[string]string{"GIT_SSH": "plink", "SSH_AUTH_SOCK": "/own"}, want: "GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0"},
	} {
		if got := names(tc.env, tc.ssh); got != tc.want {
			t.Errorf("Environ(%v, %t) sets %s, want %s", tc.env, tc.ssh, got, tc.want)
		}
	}
}
