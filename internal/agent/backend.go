package agent

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/docker"
	"github.com/longshore-run/longshore/internal/backend/process"
)

// newBackend builds the backend of config.Target. owner is the mark of this
// agent's jobs, entries the folder of the mirror.
func newBackend(config *Config, deps Deps, pool *client.Pool, owner, entries string) (backend.Backend, error) {
	executors := newExecutors(config.ExecutorPath, config.WorkingDirectory, pool.Executor, deps.Log)
	if config.Target == TargetProcess {
		return process.New(process.Config{
			Directory:       config.WorkingDirectory,
			ExecutorSource:  executors.Path,
			Env:             config.Process.Environ,
			MirrorDirectory: entries,
			Log:             deps.Log,
		})
	}
	network := config.Docker.Network
	if network == "" && config.Docker.local() && loopback(config.JobServiceURL) {
		// A container on a network of its own cannot reach the loopback of the
		// host. This is a trial on one machine: everything shares its network.
		network = "host"
		deps.Log.Warn("jobs share the network of this host, because the service listens on its loopback address only; choose otherwise with docker_network and job_service_url",
			zap.String("service_url", config.JobServiceURL))
	}
	if entries != "" && !config.Docker.local() {
		deps.Log.Warn("no mirror of git repositories: the Docker engine is not on this host", zap.String("docker_host", config.Docker.Host))
		entries = ""
	}
	return docker.New(docker.Config{
		MirrorDirectory: entries,
		Host:            config.Docker.Host,
		Owner:           owner,
		ImageBudget:     config.Docker.ImageBudget,
		PulledImages:    filepath.Join(config.WorkingDirectory, "images.json"),
		Network:         network,
		PullPolicy:      docker.PullPolicy(config.Docker.Pull),
		Capabilities:    docker.Capabilities(config.Docker.Capabilities),
		ExecutorSource:  executors.Path,
		ExecutorVersion: deps.Version,
		Log:             deps.Log,
	})
}

// local reports whether the engine is one of this host.
func (c DockerConfig) local() bool {
	return c.Host == "" || strings.HasPrefix(c.Host, "unix://")
}

// loopback reports whether base is a URL that only this host can reach.
func loopback(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
