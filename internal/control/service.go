package control

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control/logchunk"
)

// Times that the service keeps to.
const (
	// DefaultHeartbeatTimeout is how long a job may be silent.
	DefaultHeartbeatTimeout = 10 * time.Minute
	// DefaultClaimTimeout is how long after a claim its runner must be heard of.
	DefaultClaimTimeout = 30 * time.Second
	// DefaultJobTimeout is how long a job may take. Two hours leave room for
	// slow resources (database clusters, managed Kubernetes) and still free the
	// stack the same day when a program hangs.
	DefaultJobTimeout = 2 * time.Hour
	// LateTail is how long after its end the token of a job may still append
	// log lines and repeat a status.
	LateTail = 10 * time.Minute
	// AgentOnline is how long an agent counts as online after it was seen.
	AgentOnline = 2 * time.Minute
	// agentForget is how long an agent that does not come back is listed.
	agentForget = 24 * time.Hour
)

// DefaultImage is the image of jobs that name none.
const DefaultImage = "pulumi/pulumi:latest"

// Kind says what a token may be used for.
type Kind string

// The kinds of token.
const (
	KindUser Kind = "user" // lsu-: the public API
	KindPool Kind = "pool" // lsp-: agents of one pool
	KindJob  Kind = "job"  // lsj-: the runner of one job
)

// Principal is who a token stands for.
type Principal struct {
	Kind         Kind
	User         User   // of a user token
	Organization string // always set
	PoolID       string // of a pool or job token
	JobID        string // of a job token, and so are the rest
	DeploymentID string
	Stack        StackRef
	// JobEnded is set when the job of a job token has ended less than LateTail
	// ago. Such a token may append log lines and repeat a status, nothing else.
	JobEnded bool
	// Holder is the id by which the agent that speaks goes, when it says one.
	Holder string
}

// User is a person or program that uses the public API.
type User struct{ ID, Name, Email string }

// StackRef names a stack.
type StackRef struct{ Organization, Project, Stack string }

// String returns organization/project/stack.
func (r StackRef) String() string { return r.Organization + "/" + r.Project + "/" + r.Stack }

// ListQuery selects a page of a list. Zero Page and PageSize mean the first
// page of ten; an empty Sort means by version, newest first.
type ListQuery struct {
	Page, PageSize int
	Sort           string // version, created, modified, status or operation
	Asc            bool
}

// AgentInfo is what an agent says about itself when it polls. It is shown to
// people and decides nothing but the architecture of a job definition.
type AgentInfo struct{ Hostname, IP, Pid, Platform, Version string }

// Options are the parts and settings of a Service. Store and Sealer are
// required.
type Options struct {
	Store      Store
	Sealer     Sealer
	Cache      Cache                 // default: none is kept
	Log        *zap.Logger           // default: none
	Registerer prometheus.Registerer // default: metrics are kept but not registered
	Now        func() time.Time      // default: time.Now
	// Elapsed is a clock that nobody can set, for what is measured within the
	// life of the process. Default: the monotonic clock.
	Elapsed func() time.Duration
	// PublicURL is the base URL at which users, agents and jobs reach the
	// service, without /api.
	PublicURL    string
	Organization string // the one organisation; default "default"
	// BackendURL is the Pulumi backend that jobs use (PULUMI_BACKEND_URL).
	// Default: PublicURL.
	BackendURL       string
	DefaultImage     string        // of jobs that name none; default DefaultImage
	HeartbeatTimeout time.Duration // default DefaultHeartbeatTimeout
	ClaimTimeout     time.Duration // default DefaultClaimTimeout
}

// Sealer encrypts secrets at rest.
type Sealer interface {
	// Seal encrypts clear for the given context, the stack it belongs to.
	Seal(clear []byte, context string) ([]byte, error)
	// Open returns what Seal was given. It fails for anything else, and for
	// another context.
	Open(sealed []byte, context string) ([]byte, error)
}

// Service is the control plane. Its methods may be called concurrently. Errors
// of type *api.Error are for the caller to see; every other error is internal.
type Service struct {
	store        Store
	sealer       Sealer
	cache        Cache // may be nil
	log          *zap.Logger
	now          func() time.Time
	elapsed      func() time.Duration
	publicURL    string
	organization string
	backendURL   string
	defaultImage string

	beats    lease // of jobs that are confirmed
	claims   lease // of claims that are not
	codec    *logchunk.Codec
	metrics  *metrics
	waiting  waiting  // polls that wait for work
	bells    bells    // status calls that wait for an end
	presence presence // when agents were last noted
}

// New returns the control plane over o.
func New(o Options) *Service {
	s := &Service{
		store:        o.Store,
		sealer:       o.Sealer,
		cache:        o.Cache,
		log:          o.Log,
		now:          o.Now,
		elapsed:      o.Elapsed,
		publicURL:    strings.TrimRight(o.PublicURL, "/"),
		organization: or(o.Organization, "default"),
		backendURL:   o.BackendURL,
		defaultImage: or(o.DefaultImage, DefaultImage),
		codec:        logchunk.New(),
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.elapsed == nil {
		start := time.Now()
		s.elapsed = func() time.Duration { return time.Since(start) }
	}
	if o.HeartbeatTimeout <= 0 {
		o.HeartbeatTimeout = DefaultHeartbeatTimeout
	}
	if o.ClaimTimeout <= 0 {
		o.ClaimTimeout = DefaultClaimTimeout
	}
	s.beats = newLease(o.HeartbeatTimeout, s.now(), s.elapsed())
	s.claims = newLease(o.ClaimTimeout, s.now(), s.elapsed())
	s.metrics = newMetrics(o.Registerer, s.queueDepth)
	return s
}

// Run does the work that no request asks for: it fails the jobs that are
// silent, dissolves the claims that nobody took up, and forgets agents that are
// gone. It returns nil when ctx ends. Call it once.
func (s *Service) Run(ctx context.Context) error {
	beats, claims := time.NewTicker(s.beats.every()), time.NewTicker(s.claims.every())
	defer beats.Stop()
	defer claims.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beats.C:
			if err := s.reap(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("look for silent jobs", zap.Error(err))
			}
		case <-claims.C:
			if err := s.dissolveClaims(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("look for claims that nobody took up", zap.Error(err))
			}
		}
	}
}

// effects are what is to happen once a transaction is committed.
type effects struct {
	wake  []string     // pools that have work
	ring  []string     // deployments whose status changed
	ended []api.Status // of deployments
}

// update runs f in a transaction and lets the effects follow when, and only
// when, it is committed.
func (s *Service) update(ctx context.Context, f func(tx Tx, after *effects) error) error {
	var after effects
	if err := s.store.Update(ctx, func(tx Tx) error { return f(tx, &after) }); err != nil {
		return err
	}
	for _, status := range after.ended {
		s.metrics.ended.WithLabelValues(string(status)).Inc()
	}
	for _, id := range after.ring {
		s.bells.ring(id)
	}
	for _, pool := range after.wake {
		s.waiting.wake(pool)
	}
	return nil
}

// end moves a deployment to its end and lets the next of its stack be claimed.
func (after *effects) end(tx Tx, d Deployment, to api.Status) error {
	if err := tx.SetStatus(d.ID, d.Status, to); err != nil {
		return err
	}
	after.ended = append(after.ended, to)
	after.ring = append(after.ring, d.ID)
	next, err := tx.NextOf(d.Stack)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return after.queued(tx, next)
}

// queued wakes an agent for a deployment that may be claimed now.
func (after *effects) queued(tx Tx, d Deployment) error {
	if d.Status != api.StatusNotStarted {
		return nil
	}
	pool := d.PoolID
	if pool == "" {
		var err error
		if pool, err = tx.DefaultPool(d.Stack.Organization); err != nil || pool == "" {
			return err
		}
	}
	after.wake = append(after.wake, pool)
	return nil
}

// known refuses organisations that are not there.
func (s *Service) known(organization string) error {
	if organization != s.organization {
		return api.Errorf(http.StatusNotFound, "organization %q is not known", shorten(organization))
	}
	return nil
}

// orNotFound turns ErrNotFound into an answer.
func orNotFound(err error, format string, args ...any) error {
	if errors.Is(err, ErrNotFound) {
		return api.Errorf(http.StatusNotFound, format, args...)
	}
	return err
}
