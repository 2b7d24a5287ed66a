package docker

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"

	"github.com/longshore-run/longshore/internal/backend"
)

// Where things are in a job's container.
const (
	binDir       = "/longshore/bin" // the executor's volume, read-only
	executorPath = binDir + "/longshore-executor"
	jobDir       = "/longshore/job" // mode 0700, owned by the job's user
	jobFilePath  = jobDir + "/job.json"
	reportPath   = jobDir + "/report.json"
	mirrorDir    = "/longshore/mirror" // read-only
	workDir      = "/longshore/work"   // where steps start when "/" is not theirs to write to
)

const labelImage = "run.longshore.image"

// keptCapabilities are the engine's default set less four that a deployment has
// no use for: NET_RAW (forged packets), MKNOD (devices), AUDIT_WRITE (the
// host's audit log) and SETFCAP (capabilities on files).
var keptCapabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE",
	"SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

// containerPlan is what the engine is asked to create. It serialises to what
// the engine's API is sent, and holds nothing secret.
type containerPlan struct {
	Name       string
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig `json:",omitempty"`
}

// plan translates a spec into a container. It is pure: the same input gives the
// same plan, and nothing is asked of an engine.
func plan(config Config, spec backend.Spec, image imageFacts, volume string) containerPlan {
	jobFile, byStdin := jobFilePath, handsOver(config, image)
	if byStdin {
		jobFile = "-"
	}
	return containerPlan{
		Name: containerName(spec.Job.JobID),
		Config: &container.Config{
			Image: image.ID,
			User:  config.User,
			// The steps' own directory is the executor's affair; this one always
			// exists, or is the operator's, which the engine makes.
			WorkingDir: cmp.Or(config.Directory, "/"),
			Entrypoint: []string{executorPath, "run", "--job-file", jobFile},
			Cmd:        []string{},
			Env:        environment(spec.Env),
			Labels:     labels(config, spec, image),
			StopSignal: "SIGTERM",
			OpenStdin:  byStdin, StdinOnce: byStdin, AttachStdin: byStdin,
			// An image's health check would run its own command beside the steps.
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		},
		HostConfig: hostConfig(config, spec.Limits, volume),
	}
}

func hostConfig(config Config, limits backend.Limits, volume string) *container.HostConfig {
	noInit := false // the executor is the first process and reaps by itself
	h := &container.HostConfig{
		Init:        &noInit,
		NetworkMode: container.NetworkMode(cmp.Or(config.Network, "default")),
		ExtraHosts:  config.ExtraHosts,
		// What the executor prints is precious when it crashes, and only then:
		// steps' output goes to the service by another way.
		LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "1"}},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		SecurityOpt:   []string{"no-new-privileges"},
		CapDrop:       []string{"ALL"},
		Mounts: []mount.Mount{{
			Type: mount.TypeVolume, Source: volume, Target: binDir, ReadOnly: true,
			VolumeOptions: &mount.VolumeOptions{NoCopy: true},
		}},
		Resources: container.Resources{
			NanoCPUs: int64(limits.CPUs * 1e9),
			Memory:   limits.MemoryBytes,
			// The same as Memory: no swap. A job that swaps is slow for
			// everybody, and is killed later for the same reason.
			MemorySwap: limits.MemoryBytes,
		},
	}
	if config.MirrorDirectory != "" {
		h.Mounts = append(h.Mounts, mount.Mount{Type: mount.TypeBind, Source: config.MirrorDirectory, Target: mirrorDir, ReadOnly: true})
	}
	if limits.Pids > 0 {
		h.PidsLimit = &limits.Pids
	}
	if config.Capabilities == CapabilitiesDefault {
		h.CapAdd = slices.Clone(keptCapabilities)
	}
	return h
}

func labels(config Config, spec backend.Spec, image imageFacts) map[string]string {
	l := map[string]string{
		backend.LabelPool:       spec.Pool,
		backend.LabelAgent:      spec.Agent,
		backend.LabelJob:        spec.Job.JobID,
		backend.LabelDeployment: spec.Job.DeploymentID,
		labelImage:              image.Reference, // the engine's own column shows the id
	}
	if config.Owner != "" {
		l[backend.LabelOwner] = config.Owner
	}
	return l
}

// containerName is one to one with the job id for ids that are UUIDs, so that a
// container of this name is a container of this job.
func containerName(jobID string) string {
	return "longshore-" + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, jobID)
}

func environment(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// jobUser is who a job's processes run as: the operator's word, else the
// image's.
func jobUser(config Config, image imageFacts) string { return cmp.Or(config.User, image.User) }

// handsOver reports whether the job file goes through the executor's standard
// input. That is quicker than copying it into the container, for which older
// engines start a process of their own, and leaves no trace on any disk; but
// only root can make the job's directory itself.
func handsOver(config Config, image imageFacts) bool {
	name, _, _ := strings.Cut(jobUser(config, image), ":")
	return name == "" || name == "root" || name == "0"
}

// startDirectory is where every step starts. Root starts in "/", as in Pulumi's
// own runner; for anybody else that is not writable.
func startDirectory(config Config, user account) string {
	switch {
	case config.Directory != "":
		return config.Directory
	case user.UID != 0:
		return workDir
	}
	return "/"
}
