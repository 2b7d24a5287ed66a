package control

import (
	"context"
	"errors"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Errors that a store answers with.
var (
	// ErrNotFound means that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrConflict means that the row is not in the state that the caller took
	// it to be in, or that a name is taken.
	ErrConflict = errors.New("conflict")
)

// UnavailableError means that the database cannot be used now and may be again
// later: it is locked, its disk is full, it is gone. Nothing that the
// transaction did can be seen.
type UnavailableError struct {
	Reason string // for everybody to see: no paths, no SQL
	Err    error
}

func (e *UnavailableError) Error() string {
	return "database cannot be used now: " + e.Reason + ": " + e.Err.Error()
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Store is where the control plane keeps its state. It may be used
// concurrently.
type Store interface {
	// Update runs f in a transaction that may write. Either all that f did is
	// there when Update returns nil, for good, or none of it. Nothing is
	// written when ctx ends before f has returned. f must not use the
	// transaction after it returned, and must not call the store.
	Update(ctx context.Context, f func(tx Tx) error) error
	// View runs f in a transaction that only reads, on one consistent state.
	View(ctx context.Context, f func(tx Tx) error) error
}

// Tx is what a transaction can do. Every method fails with ErrNotFound when
// what it is about does not exist, unless it says otherwise.
type Tx interface {
	// Now is the time of the transaction: one stamp for all of its rows.
	Now() time.Time

	Organizations
	Users
	Tokens
	Pools
	Agents
	Deployments
	Jobs
	Logs
	StackSettings
}

// Organizations keeps the organisations.
type Organizations interface {
	// EnsureOrganization adds an organisation unless it is there.
	EnsureOrganization(name string) error
	// DefaultPool returns the id of the default pool, "" when there is none.
	DefaultPool(organization string) (string, error)
	// SetDefaultPool changes it; "" stands for none.
	SetDefaultPool(organization, poolID string) error
}

// Users keeps the users.
type Users interface {
	AddUser(u User) error
	User(id string) (User, error)
	// HasUsers reports whether there is any user.
	HasUsers() (bool, error)
}

// Token is what is kept of a token.
type Token struct {
	Hash                  TokenHash
	Kind                  Kind
	Organization          string
	UserID, PoolID, JobID string // by kind
	Created               time.Time
}

// Tokens keeps hashes of tokens.
type Tokens interface {
	AddToken(t Token) error
	Token(hash TokenHash) (Token, error)
}

// Pool is an agent pool.
type Pool struct {
	ID, Organization, Name, Description string

	Created        time.Time
	LastSeen       time.Time // newest contact of any of its agents; zero when there was none
	LastDeployment time.Time // newest claim; zero when there was none
}

// Pools keeps the agent pools.
type Pools interface {
	// AddPool fails with ErrConflict when the organisation has a pool of that name.
	AddPool(p Pool) error
	Pool(organization, id string) (Pool, error)
	// Pools lists the pools of an organisation, oldest first.
	Pools(organization string) ([]Pool, error)
	// SetPool changes name and description. It fails with ErrConflict when the
	// name is taken.
	SetPool(p Pool) error
	// DeletePool removes a pool with its tokens and agents.
	DeletePool(id string) error
	// PoolDeployments lists the unfinished deployments that name the pool or
	// run in it.
	PoolDeployments(id string) ([]Deployment, error)
}

// Agent is an agent that was seen.
type Agent struct {
	PoolID string
	AgentInfo
	LastSeen time.Time
}

// Agents keeps which agents were seen.
type Agents interface {
	// SeeAgent notes that an agent is there, at the time of the transaction.
	// Agents of a pool are told apart by hostname and pid.
	SeeAgent(poolID string, info AgentInfo) error
	// Agents lists the agents of a pool, the one seen last first.
	Agents(poolID string) ([]Agent, error)
	// ForgetAgents removes those not seen since before.
	ForgetAgents(before time.Time) error
}

// Deployment is what is kept of a deployment.
type Deployment struct {
	ID      string
	Stack   StackRef
	Version int64 // 1, 2, 3, ... of its stack
	Status  api.Status

	Operation   api.Operation
	PoolID      string // the pool it goes to; "" stands for the default pool
	RequestedBy User
	Initiator   string
	Request     []byte // the merged request as JSON, its secrets sealed

	CancelRequested   time.Time // zero when nobody did
	Created, Modified time.Time
}

// Deployments keeps the deployments, which are the queue.
type Deployments interface {
	// AddDeployment adds a not-started deployment under the next version of its
	// stack, makes the stack known, and returns the version. Times and version
	// of d are not looked at.
	AddDeployment(d Deployment) (version int64, err error)
	Deployment(id string) (Deployment, error)
	DeploymentByVersion(stack StackRef, version int64) (Deployment, error)
	// ListDeployments returns one page and the number of all.
	ListDeployments(stack StackRef, q ListQuery) (page []Deployment, total int64, err error)
	// LatestVersion returns the version of the newest deployment of a stack.
	LatestVersion(stack StackRef) (int64, error)
	// SetStatus moves a deployment. It fails with ErrConflict when the
	// deployment is not in status from.
	SetStatus(id string, from, to api.Status) error
	// RequestCancel latches the mark of a cancel; a second time has no effect.
	RequestCancel(id string) error
	// NextFor returns the deployment that an agent of the pool is to get: the
	// oldest that waits for that pool (or for the default pool, if isDefault)
	// and is the oldest unfinished one of its stack.
	NextFor(organization, poolID string, isDefault bool) (Deployment, error)
	// NextOf returns the oldest unfinished deployment of a stack.
	NextOf(stack StackRef) (Deployment, error)
	// QueueDepth counts the deployments that wait.
	QueueDepth() (int64, error)
}

// Job is the run of a deployment on one agent.
type Job struct {
	ID, DeploymentID, RunID, PoolID string

	Agent  AgentInfo
	Status api.Status // accepted, running, failed, succeeded
	// Lost is set when the service ended the job because it was silent.
	Lost bool
	// Holder is the agent that fetched the definition first, by the id it goes
	// by (Principal.Holder), empty when that has none. No other may take the job
	// up: two that got the same answer to a poll would both run it.
	Holder string
	// Claimed and LastBeat are never zero, the others are until it happens.
	// Confirmed is when the runner was heard of for the first time. A job that
	// is lost without having been confirmed never was one: its claim is
	// dissolved and its deployment gets another job.
	Claimed, Confirmed, Started, Modified, Ended, LastBeat time.Time

	Steps []StepState // by index
}

// StepState is the state of one step.
type StepState struct {
	Name              string
	Status            api.StepStatus
	Started, Modified time.Time // zero until it happens
	Lines             int64     // how many lines its log has
}

// Jobs keeps jobs and their steps.
type Jobs interface {
	// AddJob adds a job with its steps. It fails with ErrConflict while another
	// job of the deployment has not ended.
	AddJob(j Job) error
	Job(id string) (Job, error)
	// JobOf returns the job of a deployment, which is no dissolved one.
	JobOf(deploymentID string) (Job, error)
	// SetJob writes status, lost mark and times of a job, not its steps.
	SetJob(j Job) error
	// SetStep writes status and times of one step.
	SetStep(jobID string, index int, s StepState) error
	// SilentJobs lists the jobs not ended, those that are confirmed or those
	// that are not, whose last sign of life is from before or from after the
	// given times. A sign from the future is one from before the clock was set
	// back.
	SilentJobs(confirmed bool, before, after time.Time) ([]Job, error)
}

// LogChunk is a run of consecutive lines of one step, encoded by package
// logchunk.
type LogChunk struct {
	First   int64 // index of the first line in the log of its step
	Count   int   // lines
	Payload []byte
}

// LogCursor is what an append must know of its job.
type LogCursor struct {
	Lines     int64 // of the step so far
	Confirmed bool  // the runner was heard of before
	Ended     bool  // the job has ended
	Lost      bool  // by the service, because it was silent
	LastBeat  time.Time
}

// Logs keeps the logs of steps.
type Logs interface {
	// LogCursor returns where the log of a step ends.
	LogCursor(jobID string, step int) (LogCursor, error)
	// AppendLog adds a chunk at the end of a step's log. It fails with
	// ErrConflict when the chunk does not begin where the log ends.
	AppendLog(jobID string, step int, c LogChunk) error
	// LogChunks calls f with the chunks that hold line from and those after it,
	// in order, until f returns false.
	LogChunks(jobID string, step int, from int64, f func(LogChunk) bool) error
	// Beat notes a sign of life of a job, at the time of the transaction. The
	// first one confirms its claim.
	Beat(jobID string) error
}

// StackSettings keeps the deployment settings of stacks.
type StackSettings interface {
	// Settings returns the saved settings as JSON with sealed secrets, and
	// their version.
	Settings(stack StackRef) (settings []byte, version int64, err error)
	// SaveSettings replaces them and makes the stack known.
	SaveSettings(stack StackRef, settings []byte) (version int64, err error)
}
