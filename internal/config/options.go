package config

import (
	"strings"
)

// Option is one thing that can be configured.
type Option struct {
	Key     string // in the file; a dot leads into a section
	Default string // as it would be written; empty when there is none, or when it depends on something
	Help    string // one or two sentences; the first says what it is
	// DefaultHelp describes a default that depends on something.
	DefaultHelp string
	// Env names more environment variables that are read, after the two that
	// follow from the key.
	Env []string
	// Unused says why the option is read and not acted on. Setting it warns.
	Unused string
	// field returns the field that holds the value.
	field func(*Agent) any
}

// Flag returns the name of the option's flag, without the dashes.
func (o Option) Flag() string { return strings.NewReplacer("_", "-", ".", "-").Replace(o.Key) }

// EnvNames returns the environment variables that set the option, the one that
// wins first.
func (o Option) EnvNames() []string {
	name := strings.ToUpper(strings.ReplaceAll(o.Key, ".", "_"))
	return append([]string{"LONGSHORE_AGENT_" + name, "PULUMI_AGENT_" + name}, o.Env...)
}

// Secret reports whether the value must never be shown.
func (o Option) Secret() bool {
	_, secret := o.field(new(Agent)).(*Secret)
	return secret
}

// Kind names the type of the value for people, such as "duration".
func (o Option) Kind() string { return kind(o.field(new(Agent))) }

const (
	forKubernetes = "it is for the kubernetes target, which is not supported yet"
	forECS        = "it is for the ecs target, which is not supported yet"
	forOIDC       = "exchanging the token of an identity provider is not supported yet"
	legacy        = "it is left over from earlier agents"
)

// Options returns every option, in the order in which they are documented.
func Options() []Option {
	return append(append(append(serviceOptions(), jobOptions()...), timeOptions()...), unusedOptions()...)
}

func serviceOptions() []Option {
	return []Option{
		{
			Key: "token", Help: "Access token of the agent pool. Prefer token_file: a flag shows in the process list.",
			field: func(a *Agent) any { return &a.Token },
		},
		{
			Key: "token_file", Help: "File that holds the token. It is read anew for every request, so the token may be replaced while the agent runs.",
			field: func(a *Agent) any { return &a.TokenFile },
		},
		{
			Key: "service_url", Default: "https://api.pulumi.com", Help: "Base URL of the service: a Longshore server, or Pulumi Cloud.",
			field: func(a *Agent) any { return &a.ServiceURL },
		},
		{
			Key: "job_service_url", DefaultHelp: "service_url", Help: "The same service as jobs reach it, when that differs: from inside a Docker network, for instance.",
			field: func(a *Agent) any { return &a.JobServiceURL },
		},
		{
			Key: "runner_pool_id", Help: "Id of the agent pool. It labels what the agent starts.",
			field: func(a *Agent) any { return &a.RunnerPoolID },
		},
		{
			Key: "agent_name", DefaultHelp: "name of the host", Help: "Name of this agent. It labels what the agent starts.",
			field: func(a *Agent) any { return &a.Name },
		},
		{
			Key: "concurrency", DefaultHelp: "number of CPUs", Help: "How many deployments may run at the same time.",
			field: func(a *Agent) any { return &a.Concurrency },
		},
		{
			Key: "single_run", Default: "false", Help: "Run one deployment, then exit. The same as max_jobs 1.",
			field: func(a *Agent) any { return &a.SingleRun },
		},
		{
			Key: "max_jobs", DefaultHelp: "no end", Help: "Run so many deployments, then exit.",
			field: func(a *Agent) any { return &a.MaxJobs },
		},
		{
			Key: "idle_timeout", DefaultHelp: "no end", Help: "Exit when the agent had no deployment in hand for so long.",
			field: func(a *Agent) any { return &a.IdleTimeout },
		},
		{
			Key: "instance_notices", Default: NoticesOff, Help: "Cloud whose notices that this machine is about to go start a drain: aws, gcp, azure, auto (whichever answers) or off.",
			field: func(a *Agent) any { return &a.InstanceNotices },
		},
		{
			Key: "instance_metadata_url", Default: "http://169.254.169.254", Help: "Where the cloud's metadata service answers.",
			field: func(a *Agent) any { return &a.InstanceMetadataURL },
		},
		{
			Key: "working_directory", DefaultHelp: "/var/lib/longshore-agent as root, else longshore-agent below $XDG_STATE_HOME or ~/.local/state",
			Help:  "Where the agent keeps what it needs: job directories, logs that wait for the service, the downloaded executor.",
			field: func(a *Agent) any { return &a.WorkingDirectory },
		},
		{
			Key: "disk.min_free", Default: "1GiB", Help: "Room that working_directory must have for the agent to ask for deployments. 0 asks whatever is left.",
			field: func(a *Agent) any { return &a.MinFree },
		},
		{
			Key: "clock.max_skew", Default: "5m", Help: "How far the clocks of this host and of the service may be apart for the agent to ask for deployments. 0 never compares them.",
			field: func(a *Agent) any { return &a.MaxSkew },
		},
		{
			Key: "executor_path", DefaultHelp: "beside the agent, else in working_directory, else downloaded from the service",
			Help:  "The longshore-executor binary that runs inside of jobs.",
			field: func(a *Agent) any { return &a.ExecutorPath },
		},
		{
			Key: "http_server_host", DefaultHelp: "every address", Help: "Address of /healthz, /readyz and /metrics.",
			field: func(a *Agent) any { return &a.HTTPServerHost },
		},
		{
			Key: "http_server_port", Default: "8080", Help: "Port of /healthz, /readyz and /metrics. 0 picks a free one, -1 starts no server.",
			field: func(a *Agent) any { return &a.HTTPServerPort },
		},
		{
			Key: "health_threshold", DefaultHelp: "twice the longest of polling_interval, job_status_loop_interval and poll_wait",
			Help:  "Without an answer of the service for this long, /healthz says unhealthy.",
			field: func(a *Agent) any { return &a.HealthThreshold },
		},
		{
			Key: "log_format", Default: "json", Help: "Format of the agent's own log: json or console.",
			field: func(a *Agent) any { return &a.LogFormat },
		},
		{
			Key: "log_level", Default: "info", Help: "From which level on the agent logs: debug, info, warn or error.",
			field: func(a *Agent) any { return &a.LogLevel },
		},
	}
}

func jobOptions() []Option {
	return []Option{
		{
			Key: "deploy_target", Default: "docker", Help: "Where jobs run: docker (a container each) or process (a process group on this host, nothing isolated).",
			field: func(a *Agent) any { return &a.DeployTarget },
		},
		{
			Key: "docker_host", Env: []string{"DOCKER_HOST"}, DefaultHelp: "the local socket", Help: "Address of the Docker engine.",
			field: func(a *Agent) any { return &a.DockerHost },
		},
		{
			Key: "docker_network", DefaultHelp: "the engine's", Help: "Docker network that jobs join. host shares the network of the engine's machine.",
			field: func(a *Agent) any { return &a.DockerNetwork },
		},
		{
			Key: "git_known_hosts", DefaultHelp: "what the job's image knows", Help: "known_hosts file with the SSH host keys of your git servers, for jobs.",
			field: func(a *Agent) any { return &a.GitKnownHosts },
		},
		{
			Key: "source.engine", Default: "auto", Help: "Which git keeps the objects and writes the files of a checkout: git (the command of the job's image), go-git (built in), or auto: git where the image has it.",
			field: func(a *Agent) any { return &a.SourceEngine },
		},
		{
			Key: "source.sparse", Default: "true", Help: "Fetch and write only the files that a project in a folder of a large repository seems to need (docs/source.md says which). false gets all.",
			field: func(a *Agent) any { return &a.SourceSparse },
		},
		{
			Key: "source.submodules", Default: "true", Help: "Check out the submodules of a repository, too, and theirs.",
			field: func(a *Agent) any { return &a.SourceSubmodules },
		},
		{
			Key: "source.lfs", Default: "true", Help: "Get the files of Git LFS. false leaves their pointer files.",
			field: func(a *Agent) any { return &a.SourceLFS },
		},
		{
			Key: "source.ca_bundle", Help: "File with certificates (PEM) of authorities that a checkout trusts beside those of the job's image.",
			field: func(a *Agent) any { return &a.SourceCABundle },
		},
		{
			Key: "source.timeout", Default: "1h", Help: "How long a checkout may take. Without a byte from the server for a minute it is tried again, and fails, anyway.",
			field: func(a *Agent) any { return &a.SourceTimeout },
		},
		{
			Key: "cache.backend", Default: "service", Help: "Who keeps the dependency cache of jobs: service (where it has one), agent (this agent serves it, docs/cache.md), or off.",
			field: func(a *Agent) any { return &a.CacheBackend },
		},
		{
			Key: "cache.url", DefaultHelp: "the folder cache in working_directory", Help: "Bucket of the cache that the agent serves: file:///folder, s3://bucket, gs://bucket or azblob://container. All but a folder need longshore-bucket beside the agent or on the PATH.",
			field: func(a *Agent) any { return &a.CacheURL },
		},
		{
			Key: "cache.port", DefaultHelp: "a free one, kept", Help: "Port at which the agent serves the cache to its jobs: on the loopback address, or the gateway of their Docker network.",
			field: func(a *Agent) any { return &a.CachePort },
		},
		{
			Key: "cache.scope", Default: "stack", Help: "Whose entries of it a job sees: those of its stack, or with project those of all stacks of its project.",
			field: func(a *Agent) any { return &a.CacheScope },
		},
		{
			Key: "cache.max_entry", Default: "5GiB", Help: "Size of the largest entry that is kept.",
			field: func(a *Agent) any { return &a.CacheMaxEntry },
		},
		{
			Key: "cache.max_project", Default: "20GiB", Help: "Size of all entries of a project, above which those go that were used the longest ago.",
			field: func(a *Agent) any { return &a.CacheMaxProject },
		},
		{
			Key: "cache.unread", Default: "720h", Help: "After how long an entry goes that no job has used.",
			field: func(a *Agent) any { return &a.CacheUnread },
		},
		{
			Key: "source.keep_credentials", Default: "true", Help: "Answer what git asks for in later steps of a job (private modules of go, npm) with the credentials of its source, on the same server. false leaves nothing of them.",
			field: func(a *Agent) any { return &a.SourceKeepCredentials },
		},
		{
			Key: "source.mirror.path", DefaultHelp: "no mirror", Help: "Directory of this agent alone, on this host, that keeps what checkouts fetched for those after them, sealed (docs/source.md). Not with a remote Docker engine.",
			field: func(a *Agent) any { return &a.SourceMirrorPath },
		},
		{
			Key: "source.mirror.max_size", Default: "10GiB", Help: "How large the mirror may be; what was not used for longest is removed.",
			field: func(a *Agent) any { return &a.SourceMirrorMaxSize },
		},
		{
			Key: "source.ssh.accept_new_hosts", Default: "false", Help: "Trust SSH hosts whose key is not known when they are first met, and keep the key in known_hosts of the working directory. A changed key is refused.",
			field: func(a *Agent) any { return &a.SourceAcceptNewHosts },
		},
		{
			Key: "docker_capabilities", Default: "default", Help: "Capabilities of job containers: default (the engine's, less NET_RAW, MKNOD, AUDIT_WRITE and SETFCAP) or none.",
			field: func(a *Agent) any { return &a.DockerCapabilities },
		},
		{
			Key: "pull_image", Default: "true", Help: "Pull the image before every job. pull_policy says it more precisely and wins.",
			field: func(a *Agent) any { return &a.PullImage },
		},
		{
			Key: "pull_policy", DefaultHelp: "always, or missing when pull_image is false", Help: "When to pull the image of a job: always, missing or never.",
			field: func(a *Agent) any { return &a.PullPolicy },
		},
		{
			Key: "image_budget", Default: "20GiB", Help: "Disk space that the images which this agent has pulled may take; those not used for longest are removed. 0 keeps all.",
			field: func(a *Agent) any { return &a.ImageBudget },
		},
		{
			Key: "default_image", Default: "pulumi/pulumi:latest", Help: "Image of deployments that do not name one.",
			field: func(a *Agent) any { return &a.DefaultImage },
		},
		{
			Key: "override_image", Env: []string{"PULUMI_DEPLOY_OVERRIDE_IMAGE_REFERENCE"}, Help: "Image of every deployment, whatever it names.",
			field: func(a *Agent) any { return &a.OverrideImage },
		},
		{
			Key: "job_cpus", DefaultHelp: "no limit", Help: "CPU cores that one job may use.",
			field: func(a *Agent) any { return &a.JobCPUs },
		},
		{
			Key: "job_memory", DefaultHelp: "no limit", Help: "Memory that one job may use, such as 4GiB.",
			field: func(a *Agent) any { return &a.JobMemory },
		},
		{
			Key: "job_pids", DefaultHelp: "no limit", Help: "Processes and threads that one job may have.",
			field: func(a *Agent) any { return &a.JobPids },
		},
		{
			Key: "env_forward_allowlist", Help: "Names of variables that are copied from the agent's environment into jobs, where they win. DOCKER_HOST always is.",
			field: func(a *Agent) any { return &a.EnvForwardAllow },
		},
		{
			Key: "keep_failed", Default: "false", Help: "Leave the container or directory of a failed job where it is, to look into it.",
			field: func(a *Agent) any { return &a.KeepFailed },
		},
	}
}

func timeOptions() []Option {
	return []Option{
		{
			Key: "poll_wait", Default: "1m", Help: "How long the service is asked to hold a poll open until there is work. 0 asks for no waiting.",
			field: func(a *Agent) any { return &a.PollWait },
		},
		{
			Key: "polling_interval", Default: "1m", Help: "Time between two polls of a service that does not hold them; its Retry-After wins. Agents of a service that was away return spread over this time.",
			field: func(a *Agent) any { return &a.PollingInterval },
		},
		{
			Key: "polling_interval_override", Default: "false", Help: "Let polling_interval win over the service's Retry-After.",
			field: func(a *Agent) any { return &a.PollingIntervalOverride },
		},
		{
			Key: "job_status_loop_interval", Default: "30s", Help: "Time between two questions whether a running deployment was cancelled, where the service does not hold them.",
			field: func(a *Agent) any { return &a.JobStatusLoopInterval },
		},
		{
			Key: "job_timeout", DefaultHelp: "the deployment's", Help: "Limit of a whole job. The smaller of this and the deployment's own counts.",
			field: func(a *Agent) any { return &a.JobTimeout },
		},
		{
			Key: "step_timeout", DefaultHelp: "the deployment's", Help: "Limit of each step. The smaller of this and the step's own counts.",
			field: func(a *Agent) any { return &a.StepTimeout },
		},
		{
			Key: "job_idle_timeout", DefaultHelp: "no limit", Help: "How long a step of a job may go without any output before it is ended, by the same ladder as a timeout.",
			field: func(a *Agent) any { return &a.JobIdleTimeout },
		},
		{
			Key: "change_grace", Default: "10m", Help: "How long a cancelled operation that changes things may take to end after the interrupt.",
			field: func(a *Agent) any { return &a.ChangeGrace },
		},
		{
			Key: "quick_grace", Default: "30s", Help: "The same for operations that change nothing.",
			field: func(a *Agent) any { return &a.QuickGrace },
		},
		{
			Key: "drain_timeout", DefaultHelp: "no limit", Help: "How long a draining agent waits for the jobs it has in hand; then they are cancelled. 0 waits until they end.",
			field: func(a *Agent) any { return &a.DrainTimeout },
		},
		{
			Key: "request_timeout", Default: "30s", Help: "Limit of one request to the service, on top of the time it was asked to wait.",
			field: func(a *Agent) any { return &a.RequestTimeout },
		},
		{
			Key: "request_retry_count", Default: "2", Help: "How often a request is repeated that the service could not answer.",
			field: func(a *Agent) any { return &a.RequestRetryCount },
		},
		{
			Key: "request_retry_wait", Default: "20s", Help: "Wait before the first repetition.",
			field: func(a *Agent) any { return &a.RequestRetryWait },
		},
		{
			Key: "request_retry_max_wait", Default: "2m", Help: "Longest wait before a repetition, and between polls while the service is away.",
			field: func(a *Agent) any { return &a.RequestRetryMaxWait },
		},
		{
			Key: "circuit_breaker_failures", Default: "2", Help: "Requests that must fail in a row, each with all its repetitions, until the service is left alone for a while.",
			field: func(a *Agent) any { return &a.CircuitBreakerFailures },
		},
		{
			Key: "circuit_breaker_timeout", Default: "2m", Help: "How long the service is then left alone. A service that was away is found again after this time at the latest.",
			field: func(a *Agent) any { return &a.CircuitBreakerTimeout },
		},
	}
}

func unusedOptions() []Option {
	text := func(a *Agent) any { return &a.unused.text }
	list := func(a *Agent) any { return &a.unused.list }
	yes := func(a *Agent) any { return &a.unused.yes }
	life := func(a *Agent) any { return &a.unused.life }
	return []Option{
		{Key: "enabled_workflow_types", Help: "Kinds of work to accept.", Unused: "only deployments are run", field: list},
		{Key: "shared_volume_directory", Help: "Directory shared with job containers.", Unused: "jobs need no directory shared with the host", field: text},
		{Key: "oidc_token_file", Help: "File with the token of an identity provider.", Unused: forOIDC, field: text},
		{Key: "organization_name", Help: "Organization of the pool, for the exchange of tokens.", Unused: forOIDC, field: text},
		{Key: "token_expiration", Help: "Wanted life of an exchanged token.", Unused: forOIDC, field: life},
		{Key: "syslog", Help: "Log to syslog.", Unused: "the agent logs to standard error; let the init system pass it on", field: yes},
		{Key: "image", Help: "Image that worker pods copy the runner from.", Unused: forKubernetes, field: text},
		{Key: "image_pull_policy", Help: "Pull policy of worker pods.", Unused: forKubernetes, field: text},
		{Key: "service_account_name", Help: "Service account of worker pods.", Unused: forKubernetes, field: text},
		{Key: "num_cpus", Help: "CPUs of worker pods.", Unused: forKubernetes + "; job_cpus limits jobs", field: text},
		{Key: "mem_quantity", Help: "Memory of worker pods in GiB.", Unused: forKubernetes + "; job_memory limits jobs", field: text},
		{Key: "debug_pod", Help: "Keep worker pods.", Unused: forKubernetes + "; keep_failed keeps failed jobs", field: text},
		{Key: "ecs.cluster", Help: "Cluster.", Unused: forECS, field: text},
		{Key: "ecs.subnets", Help: "Subnets.", Unused: forECS, field: list},
		{Key: "ecs.security_groups", Help: "Security groups.", Unused: forECS, field: list},
		{Key: "ecs.launch_type", Help: "FARGATE or EC2.", Unused: forECS, field: text},
		{Key: "ecs.assign_public_ip", Help: "Whether the address is public.", Unused: forECS, field: yes},
		{Key: "ecs.task_definition_template_file", Help: "File with the definition to start from.", Unused: forECS, field: text},
		{Key: "workflow_runners_directory", Help: "Where the runners are.", Unused: legacy, field: text},
		{Key: "workflow_runners_embeddable", Help: "Where the runner for containers is.", Unused: legacy, field: text},
		{Key: "version", Help: "Version of the runners.", Unused: legacy, field: text},
	}
}
