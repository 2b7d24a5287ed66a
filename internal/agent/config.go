package agent

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/telemetry"
)

// The targets an agent can run jobs on, for Config.Target.
const (
	TargetDocker  = "docker"
	TargetProcess = "process"
)

// Config says what one agent does. ServiceURL and Token are needed, and either
// a Backend or a Target; the zero value of everything else is a default.
type Config struct {
	// ServiceURL is the base URL of the service, without /api.
	ServiceURL string
	// JobServiceURL is the same service as jobs reach it, where that differs,
	// such as from inside a Docker network. Default ServiceURL.
	JobServiceURL string
	// Token returns the pool token. It is asked before every request, so that a
	// token file may be replaced while the agent runs.
	Token func() (string, error)
	// Name of this agent and of its pool, for labels. Default: the host's name,
	// and "default".
	Name, Pool string
	// Concurrency is the number of jobs that may run at the same time.
	// Default 1.
	Concurrency int
	// MaxJobs ends the agent once so many claimed jobs have ended. 0: never.
	MaxJobs int
	// IdleTimeout ends the agent when it had no job in hand for so long. 0: never.
	IdleTimeout time.Duration

	// Backend is where jobs run. When it is nil, New builds one for Target.
	Backend backend.Backend
	// Target is TargetDocker or TargetProcess.
	Target string
	// Docker and Process are the settings of the targets.
	Docker  DockerConfig
	Process ProcessConfig
	// Cache is the dependency cache of jobs.
	Cache CacheConfig
	// Limits bound the resources of each job. Zero fields are unlimited.
	Limits backend.Limits

	// WorkingDirectory holds what the agent keeps: job directories, spools, the
	// downloaded executor. Needed. It is made with mode 0700 when missing.
	WorkingDirectory string
	// MinFree is the room, in bytes, that the file system of WorkingDirectory must
	// have left for a poll. 0: any.
	MinFree int64
	// MaxSkew is by how much the clocks of this host and of the service may be
	// apart for a poll. 0: by anything.
	MaxSkew time.Duration
	// ExecutorPath is the executor binary, when it is not to be looked for.
	ExecutorPath string

	// DefaultImage runs jobs whose definition asks for the runner's default.
	DefaultImage string // default pulumi/pulumi:latest
	// OverrideImage runs every job, whatever its definition says.
	OverrideImage string
	// Env is added to the environment of every step and wins over the
	// definition's.
	Env map[string]string
	// MirrorDirectory keeps what checkouts fetched for those after them, up to
	// MirrorBytes. Empty: nothing does. It is not for an engine elsewhere.
	MirrorDirectory string
	MirrorBytes     int64
	// LearnHosts lets jobs trust SSH hosts that are not known, and keeps their keys.
	LearnHosts bool
	// KeepFailed leaves what a failed job ran in where it is, for debugging.
	KeepFailed bool

	PollWait                time.Duration // how long the service is asked to hold a poll; default 60s, negative not at all
	PollingInterval         time.Duration // between polls of a service that does not hold them; default 1m
	PollingIntervalOverride bool          // PollingInterval wins over the service's Retry-After
	JobStatusInterval       time.Duration // between questions for a cancel, where the service does not hold them; default 30s
	JobTimeout              time.Duration // the agent's own limit of a job; default none
	StepTimeout             time.Duration // the agent's own limit of a step; default none
	JobIdleTimeout          time.Duration // how long a step may print nothing; default no limit
	HeartbeatInterval       time.Duration // default 30s
	ChangeGrace             time.Duration // from SIGINT to SIGTERM for operations that change things; default 10m
	QuickGrace              time.Duration // the same for the others; default 30s
	DrainTimeout            time.Duration // how long a drain waits for the jobs in hand before they are cancelled; default until they end

	RequestTimeout      time.Duration // default 30s, plus what the service was asked to hold
	RequestRetries      int           // per request; default 2
	RequestRetryWait    time.Duration // default 20s
	RequestRetryMaxWait time.Duration // default 2m
	BreakerFailures     int           // requests in a row, with all their repetitions, that open the circuit breaker; default 2
	BreakerTimeout      time.Duration // how long it stays open; default 2m
}

// DockerConfig holds the settings of the docker target.
type DockerConfig struct {
	Host    string // the engine's address; default DOCKER_HOST, else the local socket
	Network string // the network that jobs join; default the engine's
	Pull    string // always, missing or never; default always
	// Capabilities is "default" (the engine's less NET_RAW, MKNOD, AUDIT_WRITE
	// and SETFCAP) or "none".
	Capabilities string
	// ImageBudget is how many bytes the images that this agent has pulled may
	// take. 0 keeps all.
	ImageBudget int64
}

// ProcessConfig holds the settings of the process target.
type ProcessConfig struct {
	// Environ is the environment that the allow-list of the target is applied
	// to, in the form of os.Environ.
	Environ []string
}

// Deps are what an agent shares with the program around it. All may be zero.
type Deps struct {
	Log        *zap.Logger
	Health     *telemetry.Health     // told of activity and of what is wrong
	Registerer prometheus.Registerer // nil: the metrics are registered nowhere
	Version    string                // of this program, for the User-Agent and the executor
}

// validate reports every mistake at once.
func (c Config) validate() error {
	var errs []error
	if u, err := url.Parse(c.ServiceURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("service URL %q: want http:// or https:// and a host", c.ServiceURL))
	}
	if c.Token == nil {
		errs = append(errs, errors.New("pool token: missing"))
	}
	if c.Backend == nil && c.Target != TargetDocker && c.Target != TargetProcess {
		errs = append(errs, fmt.Errorf("target %q: want %s or %s", c.Target, TargetDocker, TargetProcess))
	}
	if c.WorkingDirectory == "" {
		errs = append(errs, errors.New("working directory: missing"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults(hostname string) Config {
	c.ServiceURL = strings.TrimRight(c.ServiceURL, "/")
	c.JobServiceURL = strings.TrimRight(c.JobServiceURL, "/")
	if c.JobServiceURL == "" {
		c.JobServiceURL = c.ServiceURL
	}
	if c.Name == "" {
		c.Name = hostname
	}
	if c.Pool == "" {
		c.Pool = "default"
	}
	if c.DefaultImage == "" {
		c.DefaultImage = "pulumi/pulumi:latest"
	}
	c.Concurrency = max(c.Concurrency, 1)
	if c.RequestRetries == 0 {
		c.RequestRetries = 2
	}
	if c.BreakerFailures == 0 {
		c.BreakerFailures = 2
	}
	if c.BreakerTimeout == 0 {
		c.BreakerTimeout = 2 * time.Minute
	}
	return c
}
