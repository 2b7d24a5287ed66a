// Package jobcache serves the dependency cache to the jobs of one agent, for
// services that keep none: the same calls as the service has, on an address that
// only the jobs of this host reach, each job with a token of its own. The
// entries are those of a cachestore. The main type is Server.
//
// A token is not kept anywhere: it is derived from the job, its stack and a key
// of the agent, so that a job that a later process of the agent takes over finds
// its cache as before. It dies with the job.
package jobcache

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/cachestore"
)

// Store finds the entries: *cachestore.Store. A URL that begins with a slash is
// one that Options.Blobs serves.
type Store interface {
	Get(ctx context.Context, o cachestore.Owner, key, prefix string) (cachestore.Link, error)
	Put(ctx context.Context, o cachestore.Owner, key string) (cachestore.Link, error)
	Drop(ctx context.Context, o cachestore.Owner, key string) error
}

// Options are the parts of a Server. All but Blobs and Log are required.
type Options struct {
	Store Store
	// Blobs serves the URLs of a bucket that is a folder. Nil means that a cloud
	// serves its own.
	Blobs http.Handler
	// Key derives the tokens of jobs. It must be the same for later processes of
	// the agent.
	Key []byte
	// Address returns the IP address of this host by which jobs reach it, or why
	// there is none.
	Address func(ctx context.Context) (string, error)
	// Port is the port to listen on; 0 takes a free one, the same one as last
	// time where that is possible.
	Port int
	// PortFile remembers the port for the next process of the agent.
	PortFile string
	// InHand reports whether a job is one of the agent's that has not ended.
	InHand func(jobID string) bool
	Log    *zap.Logger
}

// Server is the cache of an agent. Its methods may be called concurrently.
type Server struct {
	Options
	tokenKey []byte

	mu       sync.Mutex
	url      string // "" until it listens
	http     *http.Server
	serving  sync.WaitGroup
	shutDown bool
}

// New returns a Server that does not listen yet.
func New(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	key, err := hkdf.Key(sha256.New, o.Key, nil, "tokens of jobs", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("key of the cache: %w", err)
	}
	return &Server{Options: o, tokenKey: key}, nil
}

// Run listens, for the jobs that were there before, until ctx ends; then it cuts
// what is under way. A cache that cannot be listened for now is tried again for
// each job. Call it once.
func (s *Server) Run(ctx context.Context) {
	if _, err := s.open(ctx); err != nil {
		s.Log.Warn("the dependency cache cannot be served; it is tried again for the next job", zap.Error(err))
	}
	<-ctx.Done()
	s.mu.Lock()
	s.shutDown = true
	server := s.http
	s.mu.Unlock()
	if server != nil {
		_ = server.Close() // jobs see a broken transfer, and go on without the cache
	}
	s.serving.Wait()
}

// Access returns what a job needs to use the cache, for entries of a stack given
// as organization/project/stack.
func (s *Server) Access(ctx context.Context, jobID, stack string) (api.JobCache, error) {
	owner, ok := ownerOf(stack)
	if !ok {
		return api.JobCache{}, errors.New("the job definition names no stack")
	}
	url, err := s.open(ctx)
	if err != nil {
		return api.JobCache{}, err
	}
	return api.JobCache{URL: url, Token: s.token(jobID, owner), Stack: stack}, nil
}

func ownerOf(stack string) (cachestore.Owner, bool) {
	parts := strings.Split(stack, "/")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return cachestore.Owner{}, false
	}
	return cachestore.Owner{Organization: parts[0], Project: parts[1], Stack: parts[2]}, true
}

// tokenPrefix lets people and secret scanners tell what a token is.
const tokenPrefix = "lsc-"

// token returns the token by which a job has the entries of one stack.
func (s *Server) token(jobID string, o cachestore.Owner) string {
	mac := hmac.New(sha256.New, s.tokenKey)
	for _, part := range []string{jobID, o.Organization, o.Project, o.Stack} {
		fmt.Fprintf(mac, "%d:%s,", len(part), part)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(jobID)) + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// allowed reports whether a token opens the entries of a stack.
func (s *Server) allowed(token string, o cachestore.Owner) bool {
	encoded, _, _ := strings.Cut(strings.TrimPrefix(token, tokenPrefix), ".")
	jobID, err := base64.RawURLEncoding.DecodeString(encoded)
	return err == nil && hmac.Equal([]byte(token), []byte(s.token(string(jobID), o))) && s.InHand(string(jobID))
}

// Limits of a connection. Transfers have deadlines of their own.
const (
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	maxHead     = 16 << 10
)

// open listens, unless it does already, and returns the URL.
func (s *Server) open(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.url != "" || s.shutDown {
		return s.url, nil
	}
	address, err := s.Address(ctx)
	if err != nil {
		return "", err
	}
	listener, err := s.listen(ctx, address)
	if err != nil {
		return "", err
	}
	s.url = "http://" + listener.Addr().String()
	s.http = &http.Server{
		Handler: s.counted(s.routes()), ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		ErrorLog: zap.NewStdLog(zap.NewNop()), // broken connections of jobs
	}
	s.serving.Go(func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.Log.Error("the dependency cache is no longer served", zap.Error(err))
		}
	})
	s.Log.Info("dependency cache served to jobs", zap.String("url", s.url))
	return s.url, nil
}

// counted lets Run wait for the calls that are being answered: net/http does not.
func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.serving.Add(1)
		defer s.serving.Done()
		next.ServeHTTP(w, r)
	})
}

// listen prefers the port of last time: jobs that an earlier process started
// know that one.
func (s *Server) listen(ctx context.Context, address string) (net.Listener, error) {
	ports := []string{fmt.Sprint(s.Port)}
	if s.Port == 0 {
		if last, err := os.ReadFile(s.PortFile); err == nil {
			ports = []string{strings.TrimSpace(string(last)), "0"}
		}
	}
	var errs []error
	for _, port := range ports {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, port))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, port, _ = net.SplitHostPort(listener.Addr().String())
		if err := os.WriteFile(s.PortFile, []byte(port+"\n"), 0o600); err != nil { //nolint:gosec // a path of the operator's
			s.Log.Warn("port of the dependency cache not noted in "+filepath.Base(s.PortFile), zap.Error(err))
		}
		return listener, nil
	}
	return nil, fmt.Errorf("listen for jobs on %s: %w", address, errors.Join(errs...))
}
