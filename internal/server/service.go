package server

import (
	"context"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// Service is what the server calls: the control plane. An error of type
// *api.Error is sent to the caller as it is; any other becomes a 500 that says
// nothing but the id of the request.
type Service interface {
	Authenticator
	Deployments
	Caches
	Pools
	Runners
}

// Authenticator tells who a token stands for.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (control.Principal, error)
}

// Deployments is what users do with deployments.
type Deployments interface {
	CreateDeployment(ctx context.Context, by control.User, stack control.StackRef, req api.CreateDeploymentRequest, initiator string) (api.CreateDeploymentResponse, error)
	Deployment(ctx context.Context, stack control.StackRef, id string) (api.GetDeploymentResponse, error)
	DeploymentByVersion(ctx context.Context, stack control.StackRef, version int64) (api.GetDeploymentResponse, error)
	Deployments(ctx context.Context, stack control.StackRef, q control.ListQuery) (api.ListDeploymentResponseV2, error)
	CancelDeployment(ctx context.Context, by control.User, stack control.StackRef, id string) error
	StreamLogs(ctx context.Context, stack control.StackRef, id, continuationToken string) (api.DeploymentLogs, error)
	StepLogs(ctx context.Context, stack control.StackRef, id string, job, step int, offset int64, count int) (api.DeploymentLogsStep, error)
}

// Caches is what jobs and users do with the dependency cache.
type Caches interface {
	CacheURL(ctx context.Context, p control.Principal, stack control.StackRef, req api.CacheURLRequest) (api.CacheURLResponse, error)
	DropCacheEntry(ctx context.Context, p control.Principal, stack control.StackRef, key string) error
	ClearCache(ctx context.Context, p control.Principal, stack control.StackRef) error
}

// Pools is what users do with agent pools.
type Pools interface {
	CreatePool(ctx context.Context, org string, req api.CreateOrgAgentPoolRequest) (api.CreateAccessTokenResponse, error)
	Pools(ctx context.Context, org string) (api.ListAgentPoolsResponse, error)
	Pool(ctx context.Context, org, id string) (api.AgentPoolDetail, error)
	PatchPool(ctx context.Context, org, id string, req api.CreateOrgAgentPoolRequest) (api.PatchOrgAgentPoolResponse, error)
	DeletePool(ctx context.Context, org, id string, force bool) error
}

// Runners is what agents and executors do. Poll and RunnerStatus hold the call
// for up to wait, and return early with the context's error when it ends.
type Runners interface {
	Poll(ctx context.Context, p control.Principal, agent control.AgentInfo, wait time.Duration) (*api.AgentWorkflowDefinition, error)
	RunnerStatus(ctx context.Context, p control.Principal, deploymentID string, wait time.Duration) (api.Status, error)
	JobDefinition(ctx context.Context, p control.Principal, jobID, token string) (api.JobDefinition, error)
	ReportStep(ctx context.Context, p control.Principal, jobID string, step int, status api.StepStatus) error
	AppendLog(ctx context.Context, p control.Principal, jobID string, step int, batch api.LogBatch) error
	Heartbeat(ctx context.Context, p control.Principal, jobID string) error
}

var _ Service = (*control.Service)(nil)
