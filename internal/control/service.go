package control

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// Times that the service keeps to.
const (
	// DefaultHeartbeatTimeout is how long a job may be silent.
	DefaultHeartbeatTimeout = 10 * time.Minute
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
	Log        *zap.Logger           // default: none
	Registerer prometheus.Registerer // default: metrics are kept but not registered
	Now        func() time.Time      // default: time.Now
	// PublicURL is the base URL at which users, agents and jobs reach the
	// service, without /api.
	PublicURL    string
	Organization string // the one organisation; default "default"
	// BackendURL is the Pulumi backend that jobs use (PULUMI_BACKEND_URL).
	// Default: PublicURL.
	BackendURL       string
	DefaultImage     string        // of jobs that name none; default DefaultImage
	HeartbeatTimeout time.Duration // default DefaultHeartbeatTimeout
}

// Service is the control plane. Its methods may be called concurrently. Errors
// of type *api.Error are for the caller to see; every other error is internal.
type Service struct {
	Options
}

// New returns the control plane over o.
func New(o Options) *Service {
	return &Service{Options: o}
}

var errTODO = errors.New("not there yet")

// Sealer encrypts secrets at rest.
type Sealer interface {
	// Seal encrypts clear for the given context, the stack it belongs to.
	Seal(clear []byte, context string) ([]byte, error)
	// Open returns what Seal was given. It fails for anything else, and for
	// another context.
	Open(sealed []byte, context string) ([]byte, error)
}

func (s *Service) Run(ctx context.Context) error                             { <-ctx.Done(); return nil }
func (s *Service) Bootstrap(ctx context.Context) (userToken string, err error) { return "", errTODO }
func (s *Service) Authenticate(ctx context.Context, token string) (Principal, error) {
	return Principal{}, errTODO
}
func (s *Service) CreateDeployment(ctx context.Context, by User, stack StackRef, req api.CreateDeploymentRequest, initiator string) (api.CreateDeploymentResponse, error) {
	return api.CreateDeploymentResponse{}, errTODO
}
func (s *Service) Deployment(ctx context.Context, stack StackRef, id string) (api.GetDeploymentResponse, error) {
	return api.GetDeploymentResponse{}, errTODO
}
func (s *Service) DeploymentByVersion(ctx context.Context, stack StackRef, version int64) (api.GetDeploymentResponse, error) {
	return api.GetDeploymentResponse{}, errTODO
}
func (s *Service) Deployments(ctx context.Context, stack StackRef, q ListQuery) (api.ListDeploymentResponseV2, error) {
	return api.ListDeploymentResponseV2{}, errTODO
}
func (s *Service) CancelDeployment(ctx context.Context, by User, stack StackRef, id string) error {
	return errTODO
}
func (s *Service) StreamLogs(ctx context.Context, stack StackRef, id, continuationToken string) (api.DeploymentLogs, error) {
	return api.DeploymentLogs{}, errTODO
}
func (s *Service) StepLogs(ctx context.Context, stack StackRef, id string, job, step int, offset int64, count int) (api.DeploymentLogsStep, error) {
	return api.DeploymentLogsStep{}, errTODO
}
func (s *Service) CreatePool(ctx context.Context, org string, req api.CreateOrgAgentPoolRequest) (api.CreateAccessTokenResponse, error) {
	return api.CreateAccessTokenResponse{}, errTODO
}
func (s *Service) Pools(ctx context.Context, org string) (api.ListAgentPoolsResponse, error) {
	return api.ListAgentPoolsResponse{}, errTODO
}
func (s *Service) Pool(ctx context.Context, org, id string) (api.AgentPoolDetail, error) {
	return api.AgentPoolDetail{}, errTODO
}
func (s *Service) PatchPool(ctx context.Context, org, id string, req api.CreateOrgAgentPoolRequest) (api.PatchOrgAgentPoolResponse, error) {
	return api.PatchOrgAgentPoolResponse{}, errTODO
}
func (s *Service) DeletePool(ctx context.Context, org, id string, force bool) error { return errTODO }
func (s *Service) Poll(ctx context.Context, p Principal, agent AgentInfo, wait time.Duration) (*api.AgentWorkflowDefinition, error) {
	return nil, errTODO
}
func (s *Service) RunnerStatus(ctx context.Context, p Principal, deploymentID string, wait time.Duration) (api.Status, error) {
	return "", errTODO
}
func (s *Service) JobDefinition(ctx context.Context, p Principal, jobID, token string) (api.JobDefinition, error) {
	return api.JobDefinition{}, errTODO
}
func (s *Service) ReportStep(ctx context.Context, p Principal, jobID string, step int, status api.StepStatus) error {
	return errTODO
}
func (s *Service) AppendLog(ctx context.Context, p Principal, jobID string, step int, batch api.LogBatch) error {
	return errTODO
}
func (s *Service) Heartbeat(ctx context.Context, p Principal, jobID string) error { return errTODO }
