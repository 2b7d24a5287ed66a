package control

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/longshore-run/longshore/internal/api"
)

// Names of the steps. Clients look at them: one that were called "pulumi
// update" would make the Pulumi CLI wait for engine events.
const (
	StepNameSetup        = "Setup"
	stepNameExecutor     = "Download deployment executor"
	stepNameSource       = "Get source"
	stepNameRestore      = "Restore cache"
	stepNameDependencies = "Download dependencies"
	stepNamePreRun       = "Pre-run command %d"
	stepNameOperation    = "Pulumi operation"
	stepNameSave         = "Save cache"
)

// reservedSteps is how many steps a definition may have beside the pre-run
// commands, with room for those of the cache.
const reservedSteps = 10

// workTree is the directory of the source, below the directory in which every
// step starts.
const workTree = "deployment"

// executor is how scripts call the executor: the one that the agent brought,
// else the one that the first step downloaded.
const executor = `"${LONGSHORE_EXECUTOR:-./pulumi-deploy-executor}"`

// Variables of git credentials, for the step that gets the source.
const (
	envGitToken      = "LONGSHORE_GIT_TOKEN"
	envGitUsername   = "LONGSHORE_GIT_USERNAME"
	envGitPassword   = "LONGSHORE_GIT_PASSWORD" // #nosec G101 -- a name
	envGitSSHKey     = "LONGSHORE_GIT_SSH_KEY"
	envGitPassphrase = "LONGSHORE_GIT_SSH_PASSPHRASE" // #nosec G101 -- a name
	envServiceURL    = "LONGSHORE_SERVICE_URL"        // without /api
	envJobToken      = "LONGSHORE_JOB_TOKEN"
	envAccessToken   = "PULUMI_ACCESS_TOKEN"
)

// CompileInput is all that a job definition depends on.
type CompileInput struct {
	DeploymentID string
	Version      int64
	Stack        StackRef
	Operation    api.Operation
	Request      api.CreateDeploymentRequest // settings merged, secrets in the clear
	Token        string                      // the job token
	PublicURL    string                      // of the service, without /api
	BackendURL   string                      // where Pulumi keeps its state; empty means PublicURL
	ConsoleURL   string                      // of the deployment, for people
	DefaultImage string
	Architecture string // of the agent; empty means amd64
}

// Compile turns a deployment into the recipe that a runner carries out. It
// depends on nothing but its input, which must have passed validation.
func Compile(in CompileInput) api.JobDefinition {
	c := compiler{CompileInput: in, def: api.JobDefinition{
		OS:           "linux",
		Architecture: or(in.Architecture, "amd64"),
		Image:        &api.DockerImage{Reference: or(in.DefaultImage, DefaultImage), IsDefault: true},
		Shell:        "bash",
		Timeout:      api.Duration(DefaultJobTimeout),
		Env:          map[string]string{},
		EnvScopes:    map[string][]int{},
		Operation:    in.Operation,
	}}
	if e := in.Request.ExecutorContext; e != nil {
		c.root = e.ExecutorRootPath
		if e.ExecutorImage != nil && e.ExecutorImage.Reference != "" {
			c.def.Image = e.ExecutorImage
		}
	}
	if o := in.Request.OperationContext; o != nil {
		c.operation = *o
	}
	if o := c.operation.Options; o != nil {
		c.options = *o
	}
	c.def.Shell = or(c.options.Shell, c.def.Shell)
	c.environment()
	c.steps()
	slices.Sort(c.def.SecretEnv)
	c.def.SecretEnv = slices.Compact(c.def.SecretEnv)
	return c.def
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// compiler builds one definition.
type compiler struct {
	CompileInput
	def       api.JobDefinition
	root      string // executorRootPath, "" for the start directory
	operation api.OperationContextRequest
	options   api.OperationContextOptionsRequest
}

// environment sets the variables that every step sees. The user's win over
// ours; those that begin with LONGSHORE_ cannot be the user's.
func (c *compiler) environment() {
	env := c.def.Env
	env[envAccessToken] = c.Token
	env["PULUMI_BACKEND_URL"] = or(c.BackendURL, c.PublicURL)
	env["PULUMI_SERVICE_URL"] = c.PublicURL + "/api"
	// Programs and policies that ask whether they run in a deployment compare
	// with this very text, so it is not ours to change.
	env["PULUMI_CI_SYSTEM"] = "Pulumi Deployments"
	env["PULUMI_CI_BUILD_ID"] = c.DeploymentID
	env["PULUMI_CI_BUILD_NUMBER"] = strconv.FormatInt(c.Version, 10)
	env["PULUMI_CI_BUILD_URL"] = c.ConsoleURL
	env["PULUMI_CI_ORGANIZATION"] = c.Stack.Organization
	env["PULUMI_CI_PROJECT"] = c.Stack.Project
	env["PULUMI_CI_STACK"] = c.Stack.Stack
	env["PULUMI_CI_OPERATION"] = string(c.Operation)
	if s := c.Request.SourceContext; s != nil && s.Git != nil {
		if s.Git.Branch != "" {
			env["PULUMI_CI_BRANCH_NAME"] = strings.TrimPrefix(s.Git.Branch, "refs/heads/")
		}
		if s.Git.Commit != "" {
			env["PULUMI_CI_PULL_REQUEST_SHA"] = s.Git.Commit
		}
	}
	if c.operation.OIDC != nil {
		if text, err := json.Marshal(c.operation.OIDC); err == nil { // plain strings: it cannot fail
			env["PULUMI_DEPLOY_OIDC_CONFIG"] = string(text)
		}
	}
	for name, v := range c.operation.EnvironmentVariables {
		env[name] = v.Value
		if v.Secret && v.Value != "" {
			c.def.SecretEnv = append(c.def.SecretEnv, name)
		}
	}
	c.def.SecretEnv = append(c.def.SecretEnv, envAccessToken)
	env[envServiceURL] = c.PublicURL
}

// steps appends the steps in order.
func (c *compiler) steps() {
	c.def.Steps = []api.Step{{Name: StepNameSetup}}
	source := c.source()

	script := downloadScript
	if source == "" {
		script += "mkdir -p " + workTree + "\n" // the other steps rely on it
	}
	c.secretFor(c.add(stepNameExecutor, script, ""), envJobToken, &api.SecretValue{Value: c.Token, Secret: true})

	dir := workTree
	if source != "" {
		step := c.add(stepNameSource, source, "")
		c.credentials(step)
		if g := c.Request.SourceContext.Git; g != nil {
			dir = path.Join(workTree, g.RepoDir)
		}
	}
	install := c.options.SkipInstallDependencies == nil || !*c.options.SkipInstallDependencies
	cache := install && c.Request.CacheOptions != nil && c.Request.CacheOptions.Enable != nil && *c.Request.CacheOptions.Enable
	if cache {
		c.cacheStep(stepNameRestore, "restore", dir)
	}
	if install {
		c.add(stepNameDependencies, command("dependencies download", flag("workDir", dir)), "")
	}
	for i, script := range c.operation.PreRunCommands {
		c.add(fmt.Sprintf(stepNamePreRun, i+1), script, dir)
	}
	flags := []string{flag("stackIdentity", c.Stack.String()), flag("workDir", dir)}
	deletes := c.options.DeleteAfterDestroy != nil && *c.options.DeleteAfterDestroy && c.Operation == api.OperationDestroy
	if deletes {
		flags = append(flags, "--deleteAfterDestroy")
	}
	if on := c.options.RemediateIfDriftDetected; on != nil && *on && c.Operation == api.OperationDetectDrift {
		flags = append(flags, "--remediateIfDriftDetected")
	}
	c.add(stepNameOperation, command("pulumi "+string(c.Operation), flags...), "")
	if cache && !deletes { // there will be no other deployment of a stack that is gone
		c.cacheStep(stepNameSave, "save", dir)
	}
}

// cacheStep appends a step of the dependency cache. It gets the job's own token:
// the access token may be one that the user chose, for another backend.
func (c *compiler) cacheStep(name, verb, dir string) {
	flags := []string{flag("workDir", dir), flag("stackIdentity", c.Stack.String())}
	if s := c.Request.SourceContext; s != nil && s.Git != nil && s.Git.RepoDir != "" {
		flags = append(flags, flag("repoDir", s.Git.RepoDir))
	}
	c.secretFor(c.add(name, command("cache "+verb, flags...), ""), envJobToken, &api.SecretValue{Value: c.Token, Secret: true})
}

// add appends a step that runs in dir, a path below the start directory, and
// returns its index.
func (c *compiler) add(name, script, dir string) int {
	if c.root != "" {
		dir = path.Join(c.root, dir)
	}
	c.def.Steps = append(c.def.Steps, api.Step{Name: name, Run: script, WorkingDir: dir})
	return len(c.def.Steps) - 1
}

func command(what string, flags ...string) string {
	return strings.Join(append([]string{executor, what}, flags...), " ")
}

// source returns the script that gets the source, "" when there is none to get.
func (c *compiler) source() string {
	s := c.Request.SourceContext
	switch {
	case s == nil:
		return ""
	case s.Git != nil:
		flags := []string{flag("repoURL", s.Git.RepoURL), flag("workDir", workTree)}
		if s.Git.Branch != "" {
			flags = append(flags, flag("branch", s.Git.Branch))
		}
		if s.Git.Commit != "" {
			flags = append(flags, flag("commit", s.Git.Commit))
		}
		if s.Git.RepoDir != "" {
			flags = append(flags, flag("repoDir", s.Git.RepoDir))
		}
		return command("getsource git", flags...)
	case s.Template != nil:
		return command("getsource template", flag("sourceUrl", s.Template.SourceURL), flag("workDir", workTree))
	}
	return ""
}

// credentials gives the git credentials to one step. They are not on its
// command line.
func (c *compiler) credentials(step int) {
	var a *api.GitAuthConfigRequest
	switch s := c.Request.SourceContext; {
	case s.Git != nil:
		a = s.Git.GitAuth
	case s.Template != nil:
		a = s.Template.GitAuth
	}
	if a == nil {
		return
	}
	c.secretFor(step, envGitToken, a.AccessToken)
	if b := a.BasicAuth; b != nil {
		c.secretFor(step, envGitUsername, b.UserName)
		c.secretFor(step, envGitPassword, b.Password)
	}
	if k := a.SSHAuth; k != nil {
		c.secretFor(step, envGitSSHKey, k.SSHPrivateKey)
		c.secretFor(step, envGitPassphrase, k.Password)
	}
}

// secretFor sets a variable that only the steps see which it was called for.
func (c *compiler) secretFor(step int, name string, v *api.SecretValue) {
	if v == nil || v.Value == "" {
		return
	}
	c.def.Env[name] = v.Value
	c.def.EnvScopes[name] = append(c.def.EnvScopes[name], step)
	if v.Secret {
		c.def.SecretEnv = append(c.def.SecretEnv, name)
	}
}
