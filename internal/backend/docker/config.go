package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/backend"
)

// PullPolicy says when an image is pulled.
type PullPolicy string

// The pull policies.
const (
	PullAlways  PullPolicy = "always"  // before every job; the default
	PullMissing PullPolicy = "missing" // when the engine does not have the image
	PullNever   PullPolicy = "never"   // the engine must have the image
)

// Capabilities says which Linux capabilities a job gets.
type Capabilities string

// The capability sets.
const (
	// CapabilitiesDefault is the engine's default set less NET_RAW, MKNOD,
	// AUDIT_WRITE and SETFCAP: enough for package managers.
	CapabilitiesDefault Capabilities = "default"
	// CapabilitiesNone drops them all.
	CapabilitiesNone Capabilities = "none"
)

// Config is what a Backend needs to know. Only ExecutorSource must be set.
type Config struct {
	// Host is the engine's address, such as unix:///var/run/docker.sock or
	// tcp://10.0.0.2:2376. Empty means DOCKER_HOST, else the default socket. TLS
	// follows DOCKER_CERT_PATH and DOCKER_TLS_VERIFY.
	Host string
	// Owner marks what this agent starts, so that its next process finds it, and
	// no other agent's. Empty: nothing is found again.
	Owner string
	// Network that jobs join: a name, "host" or "none". Empty means the
	// engine's default bridge.
	Network string
	// PullPolicy defaults to PullAlways.
	PullPolicy PullPolicy
	// PullRetry is how long a pull that fails for a passing reason is tried
	// again. Default 30 s.
	PullRetry time.Duration
	// PullStall is how long a pull may make no progress before it fails. Default
	// 5 minutes.
	PullStall time.Duration
	// ImageBudget is how many bytes the images that this agent has pulled may
	// take on the engine; those not used for longest go first. 0 keeps all.
	ImageBudget int64
	// PulledImages is the file that lists them. Empty: those of this process.
	PulledImages string
	// Capabilities defaults to CapabilitiesDefault.
	Capabilities Capabilities
	// User that jobs run as, as in "docker run --user". Empty means the image's.
	User string
	// Directory where every step starts. Empty means "/", or for a user who is
	// not root a directory of the job that this user may write to.
	Directory string
	// ExtraHosts are "name:address" entries for /etc/hosts; the address may be
	// host-gateway.
	ExtraHosts []string
	// MirrorDirectory is a directory of the engine's host that jobs get to read.
	// It needs an engine on the agent's host. Empty: none.
	MirrorDirectory string
	// ExecutorSource finds the executor for the architecture of an image.
	ExecutorSource backend.ExecutorSource
	// ExecutorVersion is a label on the executor's volume, for people.
	ExecutorVersion string
	// CallTimeout bounds every call to the engine that should be quick.
	// Default 30 s.
	CallTimeout time.Duration
	// DockerConfigDir holds config.json with the credentials and credential
	// helpers. Empty means DOCKER_CONFIG, else ~/.docker.
	DockerConfigDir string
	// Log defaults to none.
	Log *zap.Logger
}

func (c *Config) setDefaults() error {
	if c.ExecutorSource == nil {
		return errors.New("docker: no executor source")
	}
	if c.PullPolicy == "" {
		c.PullPolicy = PullAlways
	}
	switch c.PullPolicy {
	case PullAlways, PullMissing, PullNever:
	default:
		return fmt.Errorf("docker: pull policy %q: want always, missing or never", c.PullPolicy)
	}
	if c.Capabilities == "" {
		c.Capabilities = CapabilitiesDefault
	}
	switch c.Capabilities {
	case CapabilitiesDefault, CapabilitiesNone:
	default:
		return fmt.Errorf("docker: capabilities %q: want default or none", c.Capabilities)
	}
	if c.CallTimeout <= 0 {
		c.CallTimeout = 30 * time.Second
	}
	if c.PullRetry <= 0 {
		c.PullRetry = 30 * time.Second
	}
	if c.PullStall <= 0 {
		c.PullStall = 5 * time.Minute
	}
	if c.DockerConfigDir == "" {
		c.DockerConfigDir = os.Getenv("DOCKER_CONFIG")
	}
	if home, err := os.UserHomeDir(); c.DockerConfigDir == "" && err == nil {
		c.DockerConfigDir = filepath.Join(home, ".docker")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return nil
}
