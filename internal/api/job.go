package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// AgentWorkflowDefinition is one claimed piece of work, as GET
// /api/deployments/poll hands it out (PROTOCOL 2.1).
type AgentWorkflowDefinition struct {
	// DeploymentID is deprecated in the API; TypeSpecificID replaces it.
	DeploymentID   string `json:"deploymentID,omitempty"`
	JobID          string `json:"jobID"`
	JobToken       string `json:"jobToken"`
	OIDCToken      string `json:"oidcToken"`
	RunID          string `json:"runID"`
	TypeSpecificID string `json:"typeSpecificID"`
}

// Deployment returns the id of the deployment that d runs.
func (d AgentWorkflowDefinition) Deployment() string {
	if d.TypeSpecificID != "" {
		return d.TypeSpecificID
	}
	return d.DeploymentID
}

// JobDefinition is the recipe of a job, as GET /api/workflow/jobs/{jobID}
// answers it (PROTOCOL 3). The fields after Steps are Longshore's own; a
// service that does not know them leaves them out and other agents ignore them.
type JobDefinition struct {
	OS           string            `json:"os"`
	Architecture string            `json:"architecture"`
	Image        *DockerImage      `json:"image"`
	Shell        string            `json:"shell"`
	Timeout      Duration          `json:"timeout,omitempty"`
	Env          map[string]string `json:"env"`
	Steps        []Step            `json:"steps"`

	// SecretEnv names the variables of Env whose values are secret, for masking.
	SecretEnv []string `json:"secretEnv,omitempty"`
	// EnvScopes names variables of Env that only the listed steps (by index)
	// may see. A variable that is not named reaches every step.
	EnvScopes map[string][]int `json:"envScopes,omitempty"`
	// Operation is what the job does, for choosing the grace of a cancel.
	// Empty means unknown, which is treated as an operation that changes things.
	Operation Operation `json:"operation,omitempty"`
}

// Step is one entry of a job definition. Index 0 is Setup: the runner's own,
// never executed (PROTOCOL 3.2).
type Step struct {
	Name       string   `json:"name"`
	Run        string   `json:"run"`
	Timeout    Duration `json:"timeout,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
}

// MaxSteps is the most steps a job definition may have.
const MaxSteps = 1000

// Validate reports every mistake of d at once, each with the path of its field.
func (d JobDefinition) Validate() error {
	var errs []error
	if d.OS != "" && d.OS != "linux" {
		errs = append(errs, fmt.Errorf("os: %q is not supported, only linux", d.OS))
	}
	if d.Image == nil || (d.Image.Reference == "" && !d.Image.IsDefault) {
		errs = append(errs, errors.New("image: missing, the definition must name an image or set image.isDefault"))
	}
	switch n := len(d.Steps); {
	case n == 0:
		errs = append(errs, errors.New("steps: missing, the definition must have at least the Setup step"))
	case n > MaxSteps:
		errs = append(errs, fmt.Errorf("steps: %d are more than the limit of %d", n, MaxSteps))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Env)) {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			errs = append(errs, fmt.Errorf("env: %q is not a variable name", name))
		case strings.ContainsRune(d.Env[name], 0):
			errs = append(errs, fmt.Errorf("env.%s: the value holds a NUL byte", name))
		}
	}
	for i, s := range d.Steps {
		if i >= MaxSteps {
			break
		}
		if strings.ContainsRune(s.Run, 0) {
			errs = append(errs, fmt.Errorf("steps[%d].run: the script holds a NUL byte", i))
		}
	}
	return errors.Join(errs...)
}
