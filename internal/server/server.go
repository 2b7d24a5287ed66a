package server

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/control"
)

// Options are the parts of a Server. Service is required.
type Options struct {
	Service Service
	// Executors are the programs that jobs download. Nil means that there are none.
	Executors *Executors
	// Blobs serves the presigned URLs of a bucket that is a folder. Nil means
	// that somebody else serves them.
	Blobs http.Handler
	// Ready says whether the server can do its work, for /readyz: nil, or why
	// not. It is asked for every probe, with a deadline. Nil means always.
	Ready func(ctx context.Context) error

	Log        *zap.Logger           // default: none
	Registerer prometheus.Registerer // default: metrics are kept but not registered
	Gatherer   prometheus.Gatherer   // what /metrics shows; default: nothing
}

// Server answers the REST API. It is an http.Handler and safe for concurrent use.
type Server struct {
	service   Service
	executors *Executors
	ready     func(ctx context.Context) error
	log       *zap.Logger
	metrics   *metrics
	router    chi.Router
	bodies    bodies
	handlers  sync.WaitGroup
	warned    warned
	polls     atomic.Int64 // that are being answered
	spread    atomic.Int64 // seconds over which agents that are sent away come back

	// noWork ends when polls are to be answered at once, draining when every
	// held call is.
	noWork, draining context.Context
	stopWork, drain  context.CancelCauseFunc
}

var _ ServerInterface = (*Server)(nil)

// New returns a server over o.
func New(o Options) *Server {
	s := &Server{
		service: o.Service, executors: o.Executors, ready: o.Ready, log: o.Log,
		metrics: newMetrics(o.Registerer),
	}
	if s.executors == nil {
		s.executors = NewExecutors()
	}
	if s.ready == nil {
		s.ready = func(context.Context) error { return nil }
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	gatherer := o.Gatherer
	if gatherer == nil {
		gatherer = prometheus.NewRegistry()
	}
	s.draining, s.drain = context.WithCancelCause(context.Background())
	s.noWork, s.stopWork = context.WithCancelCause(s.draining)
	s.router = s.routes(gatherer, o.Blobs)
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// StopWork answers all polls at once, and from now on, with no work. Everything
// else goes on, so that the jobs under way can end.
func (s *Server) StopWork() {
	s.sendAway()
	s.stopWork(errDraining)
}

// Drain answers all held calls at once, with what would be said at the end of
// their time, and holds no call from now on. It includes StopWork, and /readyz
// says no. Everything else goes on.
func (s *Server) Drain() {
	s.sendAway()
	s.drain(errDraining)
}

func (s *Server) routes(gatherer prometheus.Gatherer, blobs http.Handler) chi.Router {
	root := chi.NewRouter()
	root.Use(s.observe)
	root.NotFound(s.noRoute)
	root.MethodNotAllowed(s.noMethod)

	probes := map[string]http.Handler{
		"/healthz": http.HandlerFunc(s.healthz),
		"/readyz":  http.HandlerFunc(s.readyz),
		"/metrics": promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}),
	}
	for path, handler := range probes {
		root.Method(http.MethodGet, path, handler)
		root.Method(http.MethodHead, path, handler)
	}
	if blobs != nil { // its URLs are all the permission that it takes, and it has deadlines of its own
		root.Method(http.MethodGet, blob.Path, blobs)
		root.Method(http.MethodPut, blob.Path, blobs)
	}
	HandlerWithOptions(s, ChiServerOptions{
		BaseRouter:       root.With(s.deadline, s.authenticate),
		ErrorHandlerFunc: s.badParameter,
	})
	return root
}

// The time a caller has to send a body, and to take an answer. Calls that are
// held, and big ones, ask for more.
const (
	bodyTimeout   = time.Minute
	answerTimeout = time.Minute
)

// deadline bounds the time that an answer may take to be written, so that a
// caller that reads nothing holds no connection for ever.
func (s *Server) deadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		extendAnswer(w, 0)
		next.ServeHTTP(w, r)
	})
}

// extendAnswer gives the answer more time than others have.
func extendAnswer(w http.ResponseWriter, more time.Duration) {
	// A recorder in a test has no deadline, and needs none.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout + more))
}

func stackRef(org, project, stack string) control.StackRef {
	return control.StackRef{Organization: org, Project: project, Stack: stack}
}
