package client

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"go.uber.org/zap"
)

// Options configure a Client. Only BaseURL is required.
type Options struct {
	BaseURL   string       // of the service, http or https; a trailing slash or /api is dropped
	UserAgent string       // default "longshore"
	HTTP      *http.Client // default: a transport of this client's own; redirects are always handled by this package

	RequestTimeout time.Duration // of one request, a held call's wait comes on top; default 30s
	Retries        int           // of calls that are safe to repeat, after the first try; 0 means 2, below 0 means until the context ends
	RetryWait      time.Duration // before the first repeat, growing from there; default 20s
	RetryMaxWait   time.Duration // default 2m

	Breaker  Breaker     // of the calls with a pool token
	Observer Observer    // told of every request; optional
	Log      *zap.Logger // default: nothing is logged
}

// Breaker configures the circuit breakers of a Client: one for each kind of
// call that is made with a pool token, so that a failing poll does not keep the
// others from being tried. The defaults are those of PROTOCOL 2.7.
type Breaker struct {
	Failures int           // in a row that open it; 0 means 2, below 0 means never
	Open     time.Duration // how long it stays open; default 10m
}

// Observer is told how each request ended. Call and outcome have few values:
// they are fit to be labels of a metric.
type Observer interface {
	Request(call, outcome string, took time.Duration)
}

// Client makes requests to one service.
type Client struct{}

// New returns a Client, or an error that says what is wrong with o.BaseURL.
func New(o Options) (*Client, error) { return &Client{}, nil }

// Pool returns a view of c that authenticates with a pool token. The function
// is called for every request, so a token may change while the agent runs.
func (c *Client) Pool(token func() (string, error)) *Pool { return &Pool{} }

// Job returns a view of c that authenticates with the token of one job.
func (c *Client) Job(id, token string) *Job { return &Job{} }

// Pool makes the calls of an agent.
type Pool struct{}

// PollResult is the answer to one poll.
type PollResult struct {
	Work        *api.AgentWorkflowDefinition // nil: the queue is empty
	RetryAfter  time.Duration                // when the service wants the next poll; 0: it did not say
	WaitApplied bool                         // the service held the poll open as it was asked to
}

// Poll asks for work with exactly one request.
func (p *Pool) Poll(ctx context.Context, wait time.Duration) (PollResult, error) {
	return PollResult{}, nil
}

// DeploymentStatus returns the status of a deployment.
func (p *Pool) DeploymentStatus(ctx context.Context, id string, wait time.Duration) (status api.Status, waitApplied bool, err error) {
	return "", false, nil
}

// Executor downloads the executor for an architecture ("amd64", "arm64").
func (p *Pool) Executor(ctx context.Context, arch string) (io.ReadCloser, error) { return nil, nil }

// Job makes the calls of a job.
type Job struct{}

// Definition fetches the job's definition.
func (j *Job) Definition(ctx context.Context) (api.JobDefinition, error) {
	return api.JobDefinition{}, nil
}

// Step reports the status of a step.
func (j *Job) Step(ctx context.Context, index int, s api.StepStatus) error { return nil }

// Logs sends one batch with exactly one request.
func (j *Job) Logs(ctx context.Context, index int, b api.LogBatch) error { return nil }

// RawLogs is Logs for a batch that is already encoded.
func (j *Job) RawLogs(ctx context.Context, index int, body []byte) error { return nil }

// Heartbeat says that the job is alive.
func (j *Job) Heartbeat(ctx context.Context) error { return nil }

// Retryable reports whether the same request may succeed later.
func Retryable(err error) bool { return false }

// Refused reports whether the service refused the token (401, 403).
func Refused(err error) bool { return false }

// Gone reports whether the service will never accept this call again (401, 403,
// 404, 410).
func Gone(err error) bool { return false }
