package api

// JobFile is what an agent hands to the executor of one job: everything it
// needs, in one file of mode 0600 that the executor reads and removes first
// thing; "-" as its name stands for standard input. It never travels in an
// argument or an environment variable.
type JobFile struct {
	ServiceURL   string `json:"serviceURL"` // base URL as the job reaches it, without /api
	JobID        string `json:"jobID"`
	DeploymentID string `json:"deploymentID"`
	JobToken     string `json:"jobToken"`
	OIDCToken    string `json:"oidcToken,omitempty"`

	Definition JobDefinition `json:"definition"`

	// Cache is the dependency cache that the agent itself serves to the job. Nil:
	// the job asks the service for one.
	Cache *JobCache `json:"cache,omitempty"`

	// Env is what the agent's own configuration adds to every step; it wins
	// over the definition's.
	Env map[string]string `json:"env,omitempty"`
	// Directory is where every step starts. Empty means the directory in which
	// the executor was started.
	Directory string `json:"directory,omitempty"`
	// ReportPath is where the executor keeps its Report up to date. It makes the
	// directory when there is none, and prints its final report as the last line
	// of its standard output as well.
	ReportPath string `json:"reportPath"`
	// SpoolDirectory is where logs wait that the service does not take, and where
	// those are left that it has not taken when the executor ends. Empty means
	// SpoolName beside the report. It is made when needed and removed when empty.
	SpoolDirectory string `json:"spoolDirectory,omitempty"`

	// MirrorDirectory holds what earlier checkouts fetched, to read only, and
	// MirrorLimit is how many bytes a new entry may have. Empty means that there
	// is no mirror.
	MirrorDirectory string `json:"mirrorDirectory,omitempty"`
	MirrorLimit     int64  `json:"mirrorLimit,omitempty"`

	HeartbeatInterval Duration `json:"heartbeatInterval,omitempty"` // default 30s
	Timeout           Duration `json:"timeout,omitempty"`           // the agent's own limit of the whole job; the smaller of this and the definition's counts
	StepTimeout       Duration `json:"stepTimeout,omitempty"`       // the same for each step
	IdleTimeout       Duration `json:"idleTimeout,omitempty"`       // how long a step may go without a byte of output; default no limit
	ChangeGrace       Duration `json:"changeGrace,omitempty"`       // SIGINT to SIGTERM for operations that change things; default 10m
	QuickGrace        Duration `json:"quickGrace,omitempty"`        // the same for the others; default 30s
	DeliverTimeout    Duration `json:"deliverTimeout,omitempty"`    // how long to keep trying to deliver logs and status at the end; default 10m
}

// SpoolName is the directory beside the report in which logs wait, unless
// SpoolDirectory names another.
const SpoolName = "spool"

// KeptName is the directory beside the report in which a job leaves what its
// agent may keep for other jobs. Its files may have been written by anybody in
// the job.
const KeptName = "kept"

// Report is the executor's own word about its job, kept in a file so that it
// outlives the executor. An agent believes a job succeeded only when the report
// says so: a container's exit code 0 alone proves nothing.
type Report struct {
	// Step is the index of the step that runs or ran last.
	Step int `json:"step"`
	// Status of that step, as the executor last knew it.
	Status StepStatus `json:"status"`
	// Delivered is true once the service has accepted every log line and status
	// up to here.
	Delivered bool `json:"delivered"`
	// Outcome is empty until the executor is done.
	Outcome Outcome `json:"outcome,omitempty"`
	// Message says why, in one line without secrets, when Outcome is no success.
	Message string `json:"message,omitempty"`
	// Signalled is true once a signal has asked the executor to end its job: its
	// agent's, or that of whatever else may stop what the job runs in.
	Signalled bool `json:"signalled,omitempty"`
	// Cache is what came of the entries of the dependency cache, in the words of
	// commands of the job. It is for metrics alone.
	Cache CacheOutcomes `json:"cache,omitempty"`
}

// Outcome is how a job ended, in the executor's words.
type Outcome string

// The outcomes of a job.
const (
	OutcomeSucceeded     Outcome = "succeeded"
	OutcomeStepFailed    Outcome = "step-failed"
	OutcomeBadDefinition Outcome = "bad-definition"
	OutcomeCancelled     Outcome = "cancelled"
	OutcomeTimedOut      Outcome = "timed-out"
	OutcomeOutOfMemory   Outcome = "out-of-memory" // a step ran, or was about to run, into the memory limit
	OutcomeServiceLost   Outcome = "service-lost"
)

// Valid reports whether o is one of the outcomes above.
func (o Outcome) Valid() bool { return o.ExitCode() != 1 }

// Exit codes of "longshore-executor run". Any other code is a crash. They are
// disjoint from those of the user's own commands, which are never passed on.
const (
	ExitSucceeded     = 0
	ExitNotBegun      = 1 // no whole job file came: nothing of the job was run
	ExitStepFailed    = 10
	ExitBadDefinition = 11
	ExitCancelled     = 12
	ExitTimedOut      = 13
	ExitServiceLost   = 14
)

// ExitCode returns the exit code that stands for o, and 1 for an outcome that
// has none.
func (o Outcome) ExitCode() int {
	switch o {
	case OutcomeSucceeded:
		return ExitSucceeded
	case OutcomeStepFailed, OutcomeOutOfMemory:
		return ExitStepFailed
	case OutcomeBadDefinition:
		return ExitBadDefinition
	case OutcomeCancelled:
		return ExitCancelled
	case OutcomeTimedOut:
		return ExitTimedOut
	case OutcomeServiceLost:
		return ExitServiceLost
	}
	return 1
}

// JobCache says how a job reaches the dependency cache of its agent, or that it
// is to use none. The executor's cache commands read it from a file.
type JobCache struct {
	URL   string `json:"url,omitempty"`   // without /api
	Token string `json:"token,omitempty"` // for the entries of Stack, as long as the job lives
	Stack string `json:"stack,omitempty"` // organization/project/stack
	Off   string `json:"off,omitempty"`   // why there is no cache; then the rest is empty
}
