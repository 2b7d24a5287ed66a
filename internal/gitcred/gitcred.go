// Package gitcred answers what git asks for later in a job: the credentials with
// which the source was got, for the host that they are for. So go, npm and a git
// in a script reach private repositories beside the deployment's own, and no file,
// remote, argument or environment holds a secret.
//
// A Server lives in the executor, as long as the job, and keeps everything in
// memory. The step that gets the source puts into it what it was given; git asks
// by a credential helper (Help), and ssh by the protocol of ssh-agent, which signs
// and never gives a key out. Both come by sockets in a directory that only the
// job's user may enter: whatever runs in the job may ask, and nobody else.
package gitcred

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// Credential is a user name and password for one server.
type Credential struct {
	Scheme   string `json:"scheme"` // https or http
	Host     string `json:"host"`   // with the port where it is not the usual one
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// AnyUser says that the password is a token, which goes with any user name.
	AnyUser bool `json:"anyUser,omitempty"`
}

// Key is a private key, in OpenSSH or PEM form, and what opens it.
type Key struct {
	PEM        []byte `json:"pem"`
	Passphrase string `json:"passphrase,omitempty"`
	// KnownHosts are lines of a known_hosts file, for ssh.
	KnownHosts string `json:"knownHosts,omitempty"`
}

// mayHave reports whether the credential is for the server: the same one, or the
// same host's https in place of its http.
func (c Credential) mayHave(scheme, host string) bool {
	if !strings.EqualFold(c.Host, host) {
		return false
	}
	return c.Scheme == scheme || c.Scheme == "http" && scheme == "https" && !strings.Contains(host, ":")
}

// request and answer are one line of JSON each.
type request struct {
	Put *Credential `json:"put,omitempty"`
	Key *Key        `json:"key,omitempty"`
	Get *Credential `json:"get,omitempty"` // scheme, host, and the user name that is wanted
}

type answer struct {
	Credential *Credential `json:"credential,omitempty"`
	Error      string      `json:"error,omitempty"`
}

const (
	callTimeout = 10 * time.Second
	mostBytes   = 1 << 20 // of a request or an answer
)

// Put lets the server at the socket answer with c.
func Put(ctx context.Context, socket string, c Credential) error {
	_, err := call(ctx, socket, request{Put: &c})
	return err
}

// PutKey lets the server at the socket sign with k.
func PutKey(ctx context.Context, socket string, k Key) error {
	_, err := call(ctx, socket, request{Key: &k})
	return err
}

func call(ctx context.Context, socket string, r request) (answer, error) {
	var a answer
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return a, fmt.Errorf("credentials of the job: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return a, fmt.Errorf("credentials of the job: %w", err)
	}
	if err := json.NewDecoder(io.LimitReader(conn, mostBytes)).Decode(&a); err != nil {
		return a, fmt.Errorf("credentials of the job: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// Help does what git expects of a credential helper that is called with the
// operation: it reads what is asked for from in and writes what it knows to out.
// It answers get only, and keeps nothing. A GITHUB_TOKEN of the step's own
// environment is for the GitHub that the environment names, where the job has
// nothing else.
func Help(ctx context.Context, operation, socket string, getenv func(string) string, in io.Reader, out io.Writer) error {
	if operation != "get" {
		return nil
	}
	asked, err := readQuestion(in)
	if err != nil {
		return err
	}
	found := GitHub(getenv, asked.Scheme, asked.Host)
	if socket != "" {
		a, err := call(ctx, socket, request{Get: &asked})
		switch {
		case a.Credential != nil:
			found = a.Credential
		case err != nil && found == nil:
			return err
		}
	}
	if found == nil {
		return nil
	}
	_, err = fmt.Fprintf(out, "username=%s\npassword=%s\n", found.Username, found.Password)
	return err
}

// readQuestion reads lines of the form key=value.
func readQuestion(in io.Reader) (asked Credential, err error) {
	lines := bufio.NewScanner(io.LimitReader(in, mostBytes))
	for lines.Scan() && lines.Text() != "" {
		key, value, _ := strings.Cut(lines.Text(), "=")
		switch key {
		case "protocol":
			asked.Scheme = value
		case "host":
			asked.Host = value
		case "username":
			asked.Username = value
		}
	}
	return asked, lines.Err()
}

// GitHub returns what GITHUB_TOKEN of an environment is for, when that is the
// server: the one that GITHUB_SERVER_URL names, else github.com. Else it is nil.
func GitHub(getenv func(string) string, scheme, on string) *Credential {
	host := "github.com"
	if u, err := url.Parse(getenv("GITHUB_SERVER_URL")); err == nil && u.Host != "" {
		host = u.Host
	}
	token := getenv("GITHUB_TOKEN")
	if token == "" || scheme != "https" || !strings.EqualFold(on, host) || strings.ContainsAny(token, "\n\x00") {
		return nil
	}
	return &Credential{Scheme: scheme, Host: on, Username: "x-access-token", Password: token, AnyUser: true}
}
