package gitcred

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// longest is how long the path of a socket may be on every Unix.
const longest = 100

// Server keeps the credentials of one job. Close it at the job's end.
type Server struct {
	dir     string
	own     bool // the directory is ours to remove
	secret  func(string)
	keys    agent.Agent
	sockets []net.Listener

	serving sync.WaitGroup
	mu      sync.Mutex
	creds   []Credential
	conns   map[net.Conn]bool
	closed  bool
}

// Listen begins to serve in the directory dir, or where the path of a socket in it
// would be too long, in one among the temporary files. secret is told what must
// never show.
func Listen(dir string, secret func(string)) (*Server, error) {
	s := &Server{dir: dir, secret: secret, keys: agent.NewKeyring(), conns: map[net.Conn]bool{}}
	if len(s.Socket()) > longest {
		var err error
		if s.dir, err = os.MkdirTemp("", "longshore-"); err != nil {
			return nil, fmt.Errorf("credentials of the job: %w", err)
		}
		s.own = true
	}
	for path, serve := range map[string]func(net.Conn){s.Socket(): s.answer, s.AgentSocket(): s.sign} {
		l, err := net.Listen("unix", path) //nolint:noctx // it takes no time
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("credentials of the job: %w", err)
		}
		s.sockets = append(s.sockets, l)
		s.serving.Go(func() { s.accept(l, serve) })
	}
	return s, nil
}

// Socket is where credentials are put and asked for.
func (s *Server) Socket() string { return filepath.Join(s.dir, "git.sock") }

// AgentSocket speaks the protocol of ssh-agent.
func (s *Server) AgentSocket() string { return filepath.Join(s.dir, "ssh.sock") }

// KnownHosts is the path of a known_hosts file. It is there once a key is.
func (s *Server) KnownHosts() string { return filepath.Join(s.dir, "known_hosts") }

// Environ adds to env what makes git ask the server, by the program helper: what
// env has of git's configuration stays. With withSSH, ssh asks, too, unless env
// says otherwise.
func (s *Server) Environ(env map[string]string, helper string, withSSH bool) map[string]string {
	add := map[string]string{}
	n, err := strconv.Atoi(env["GIT_CONFIG_COUNT"])
	if env["GIT_CONFIG_COUNT"] == "" || err == nil && n >= 0 {
		add["GIT_CONFIG_COUNT"] = strconv.Itoa(n + 1)
		add[fmt.Sprintf("GIT_CONFIG_KEY_%d", n)] = "credential.helper"
		add[fmt.Sprintf("GIT_CONFIG_VALUE_%d", n)] = "!" + shellQuote(helper) + " credential --socket=" + shellQuote(s.Socket())
	}
	if !withSSH {
		return add
	}
	if env["SSH_AUTH_SOCK"] == "" {
		add["SSH_AUTH_SOCK"] = s.AgentSocket()
	}
	if env["GIT_SSH_COMMAND"] == "" && env["GIT_SSH"] == "" {
		files := fmt.Sprintf(`GlobalKnownHostsFile=/etc/ssh/ssh_known_hosts "%s"`, s.KnownHosts())
		add["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes -o " + shellQuote(files)
	}
	return add
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Close forgets everything and returns when nobody is served any more.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.creds = nil
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	_ = s.keys.RemoveAll()
	for _, l := range s.sockets {
		_ = l.Close() // removes the socket
	}
	s.serving.Wait()
	_ = os.Remove(s.KnownHosts())
	if s.own {
		_ = os.RemoveAll(s.dir)
	}
}

func (s *Server) accept(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many files are open, for instance
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !s.hold(conn) {
			_ = conn.Close()
			return
		}
		s.serving.Go(func() {
			defer s.release(conn)
			serve(conn)
		})
	}
}

func (s *Server) hold(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.conns[conn] = true
	}
	return !s.closed
}

func (s *Server) release(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	_ = conn.Close()
}

func (s *Server) sign(conn net.Conn) { _ = agent.ServeAgent(s.keys, conn) }

func (s *Server) answer(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(callTimeout))
	var r request
	if json.NewDecoder(io.LimitReader(conn, mostBytes)).Decode(&r) != nil {
		return
	}
	a := answer{}
	switch {
	case r.Put != nil:
		s.put(*r.Put)
	case r.Key != nil:
		if err := s.putKey(*r.Key); err != nil {
			a.Error = err.Error()
		}
	case r.Get != nil:
		a.Credential = s.find(*r.Get)
	}
	_ = json.NewEncoder(conn).Encode(a)
}

func (s *Server) put(c Credential) {
	if strings.ContainsAny(c.Username+c.Password, "\n\x00") || c.Password == "" && c.Username == "" {
		return // git's protocol has no way to say it
	}
	s.secret(c.Password)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.creds = append([]Credential{c}, s.creds...) // the last one wins
	}
}

func (s *Server) find(asked Credential) *Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.creds {
		switch {
		case !c.mayHave(asked.Scheme, asked.Host):
		case asked.Username == "" || asked.Username == c.Username:
			return &c
		case c.AnyUser:
			c.Username = asked.Username
			return &c
		}
	}
	return nil
}

func (s *Server) putKey(k Key) error {
	private, err := ssh.ParseRawPrivateKey(k.PEM)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		private, err = ssh.ParseRawPrivateKeyWithPassphrase(k.PEM, []byte(k.Passphrase))
	}
	if err != nil {
		return errors.New("credentials of the job: the SSH key cannot be read")
	}
	if err := s.keys.Add(agent.AddedKey{PrivateKey: private, Comment: "of the deployment"}); err != nil {
		return errors.New("credentials of the job: the SSH key is of no kind that ssh-agent knows")
	}
	if err := os.WriteFile(s.KnownHosts(), []byte(k.KnownHosts), 0o600); err != nil {
		return fmt.Errorf("credentials of the job: %w", err)
	}
	return nil
}
