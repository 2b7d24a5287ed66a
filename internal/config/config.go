// Package config reads the configuration of an agent. Each option is declared
// once, in options.go; its flag, its environment variables, its key in the
// file, its help and its line in the documentation all come from there.
//
// A flag wins over the environment, the environment over the file, the file
// over the default. The file is longshore-agent.yaml or, unchanged, the
// pulumi-workflow-agent.yaml of an agent that Longshore replaces. The main type
// is Agent, the main function Load.
package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Agent is the configuration of one agent, complete and checked. The help
// texts in options.go say what each field means.
type Agent struct {
	Token         Secret
	TokenFile     string
	ServiceURL    string
	JobServiceURL string
	Name          string
	RunnerPoolID  string
	Concurrency   int
	SingleRun     bool
	MaxJobs       int // 1 when SingleRun
	IdleTimeout   time.Duration

	InstanceNotices     string
	InstanceMetadataURL string

	DeployTarget          string
	DockerHost            string
	DockerNetwork         string
	GitKnownHosts         string
	SourceEngine          string
	SourceSparse          bool
	SourceSubmodules      bool
	SourceLFS             bool
	SourceCABundle        string
	SourceTimeout         time.Duration
	CacheBackend          string
	CacheURL              string
	CachePort             int
	CacheScope            string
	CacheMaxEntry         Bytes
	CacheMaxProject       Bytes
	CacheUnread           time.Duration
	DockerCapabilities    string
	PullImage             bool
	PullPolicy            string
	ImageBudget           Bytes
	JobCPUs               float64
	JobMemory             Bytes
	JobPids               int
	DefaultImage          string
	OverrideImage         string
	EnvForwardAllow       []string
	KeepFailed            bool
	SourceMirrorPath      string
	SourceMirrorMaxSize   Bytes
	SourceAcceptNewHosts  bool
	SourceKeepCredentials bool

	WorkingDirectory string
	MinFree          Bytes
	MaxSkew          time.Duration
	ExecutorPath     string

	PollWait                time.Duration
	PollingInterval         time.Duration
	PollingIntervalOverride bool
	JobStatusLoopInterval   time.Duration
	JobTimeout              time.Duration
	StepTimeout             time.Duration
	JobIdleTimeout          time.Duration
	ChangeGrace             time.Duration
	QuickGrace              time.Duration
	DrainTimeout            time.Duration

	RequestTimeout         time.Duration
	RequestRetryCount      int
	RequestRetryWait       time.Duration
	RequestRetryMaxWait    time.Duration
	CircuitBreakerFailures int
	CircuitBreakerTimeout  time.Duration

	HTTPServerHost  string
	HTTPServerPort  int
	HealthThreshold time.Duration
	LogFormat       string
	LogLevel        string

	unused unused
}

// NoticesOff is the InstanceNotices of an agent that watches for none.
const NoticesOff = "off"

// unused receives the options that are read and not acted on.
type unused struct {
	text string
	list []string
	yes  bool
	life time.Duration
}

// PoolToken returns a function that returns the pool token: the configured
// one, or what the token file holds at that moment.
func (a *Agent) PoolToken() func() (string, error) {
	if a.TokenFile == "" {
		return func() (string, error) { return a.Token.Reveal(), nil }
	}
	return func() (string, error) {
		b, err := os.ReadFile(a.TokenFile)
		if err != nil {
			return "", fmt.Errorf("read the pool token: %w", err)
		}
		token := strings.TrimSpace(string(b))
		if token == "" {
			return "", fmt.Errorf("read the pool token: %s is empty", a.TokenFile)
		}
		return token, nil
	}
}

// finish fills in the defaults that depend on other things, and checks what no
// single option can. It leaves out what is known to be bad already.
func (a *Agent) finish(s sources, bad map[string]bool) []error {
	var errs []error
	mistake := func(key, format string, args ...any) {
		if !bad[key] {
			errs = append(errs, fmt.Errorf("%s: %s (%s)", key, fmt.Sprintf(format, args...), s.at(key)))
		}
	}
	a.ServiceURL = strings.TrimRight(a.ServiceURL, "/")
	a.JobServiceURL = strings.TrimRight(a.JobServiceURL, "/")
	checkURL("service_url", a.ServiceURL, mistake)
	if a.JobServiceURL != "" {
		checkURL("job_service_url", a.JobServiceURL, mistake)
	}
	if err := a.chooseToken(s); err != nil {
		errs = append(errs, err)
	}
	switch a.DeployTarget {
	case "docker", "process":
	case "kubernetes", "ecs":
		mistake("deploy_target", "%s is not supported yet: use docker or process", a.DeployTarget)
	default:
		mistake("deploy_target", "%q is none: want docker or process", a.DeployTarget)
	}
	oneOf := func(key, value string, allowed ...string) {
		for _, v := range allowed {
			if value == v {
				return
			}
		}
		mistake(key, "%q is none: want %s", value, strings.Join(allowed, ", "))
	}
	if a.PullPolicy == "" {
		a.PullPolicy = "missing"
		if a.PullImage {
			a.PullPolicy = "always"
		}
	}
	oneOf("pull_policy", a.PullPolicy, "always", "missing", "never")
	oneOf("source.engine", a.SourceEngine, "auto", "git", "go-git")
	a.checkCache(oneOf, mistake)
	oneOf("docker_capabilities", a.DockerCapabilities, "default", "none")
	oneOf("instance_notices", a.InstanceNotices, NoticesOff, "aws", "gcp", "azure", "auto")
	checkURL("instance_metadata_url", a.InstanceMetadataURL, mistake)
	oneOf("log_format", a.LogFormat, "json", "console")
	oneOf("log_level", a.LogLevel, "debug", "info", "warn", "error")
	if a.Concurrency == 0 && !s.set("concurrency") {
		a.Concurrency = runtime.NumCPU()
	}
	if a.Concurrency < 1 || a.Concurrency > 1000 {
		mistake("concurrency", "%d is out of range: want 1 to 1000", a.Concurrency)
	}
	if a.MaxJobs < 0 {
		mistake("max_jobs", "%d is out of range: want 1 or more, or 0 for no end", a.MaxJobs)
	}
	if a.SingleRun {
		a.MaxJobs = 1
	}
	if a.HTTPServerPort < -1 || a.HTTPServerPort > 65535 {
		mistake("http_server_port", "%d is no port: want 0 to 65535, or -1 for no server", a.HTTPServerPort)
	}
	if a.PollingInterval == 0 {
		mistake("polling_interval", "must be more than nothing, such as 1m")
	}
	if a.JobStatusLoopInterval == 0 {
		mistake("job_status_loop_interval", "must be more than nothing, such as 30s")
	}
	if a.SourceMirrorMaxSize < 1<<20 {
		mistake("source.mirror.max_size", "must be at least 1MiB, such as 10GiB")
	}
	if a.SourceTimeout <= 0 {
		mistake("source.timeout", "must be more than nothing, such as 1h")
	}

	if a.HealthThreshold == 0 {
		a.HealthThreshold = 2 * max(a.PollingInterval, a.JobStatusLoopInterval, a.PollWait)
	}
	a.chooseDirectory(s)
	return errs
}

func (a *Agent) checkCache(oneOf func(key, value string, allowed ...string), mistake func(key, format string, args ...any)) {
	oneOf("cache.backend", a.CacheBackend, "service", "agent", "off")
	oneOf("cache.scope", a.CacheScope, "stack", "project")
	if a.CachePort < 0 || a.CachePort > 65535 {
		mistake("cache.port", "%d is no port: want 0 to 65535", a.CachePort)
	}
	if a.CacheMaxEntry <= 0 {
		mistake("cache.max_entry", "must be more than nothing, such as 5GiB")
	}
	if a.CacheMaxProject <= 0 {
		mistake("cache.max_project", "must be more than nothing, such as 20GiB")
	}
	if a.CacheUnread <= 0 {
		mistake("cache.unread", "must be more than nothing, such as 720h")
	}
	scheme, rest, _ := strings.Cut(a.CacheURL, "://")
	if a.CacheURL != "" && (rest == "" || !slices.Contains([]string{"file", "s3", "gs", "azblob"}, scheme)) {
		mistake("cache.url", "no bucket: want file:///folder, s3://bucket, gs://bucket or azblob://container")
	}
}

func (a *Agent) chooseDirectory(s sources) {
	if a.WorkingDirectory == "" {
		a.WorkingDirectory = defaultDirectory(s)
	}
	if abs, err := filepath.Abs(a.WorkingDirectory); err == nil {
		a.WorkingDirectory = abs
	}
}

func checkURL(key, value string, mistake func(key, format string, args ...any)) {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		mistake(key, "%q is no URL of a service: want such as https://api.pulumi.com", value)
	case u.User != nil:
		mistake(key, "must not hold a user or password: the token has an option of its own")
	case u.RawQuery != "" || u.Fragment != "":
		mistake(key, "must end with the path, without ? or #")
	}
}

// chooseToken lets the more important source win when one names a token and
// another a token file.
func (a *Agent) chooseToken(s sources) error {
	switch {
	case a.Token.Reveal() == "" && a.TokenFile == "":
		if s.set("oidc_token_file") {
			return errors.New("token: missing, and exchanging the token of an identity provider (oidc_token_file) is not supported yet: set token or token_file")
		}
		return errors.New("token: missing: set --token-file, LONGSHORE_AGENT_TOKEN, or token in the file to the access token of an agent pool")
	case a.Token.Reveal() == "" || a.TokenFile == "":
	case s.layer("token") > s.layer("token_file"):
		a.TokenFile = ""
	case s.layer("token") < s.layer("token_file"):
		a.Token = ""
	default:
		return fmt.Errorf("token: set token (%s) or token_file (%s), not both", s.at("token"), s.at("token_file"))
	}
	if a.TokenFile != "" {
		if _, err := a.PoolToken()(); err != nil {
			return fmt.Errorf("token_file: %w (%s)", err, s.at("token_file"))
		}
	}
	return nil
}

func defaultDirectory(s sources) string {
	if os.Geteuid() == 0 {
		return "/var/lib/longshore-agent"
	}
	if dir := s.getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "longshore-agent")
	}
	return filepath.Join(s.getenv("HOME"), ".local", "state", "longshore-agent")
}
