package workflow

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// DefaultShell runs the scripts of a definition that names no shell.
const DefaultShell = "bash"

// Defaults of Input's graces (DESIGN 3).
const (
	DefaultChangeGrace = 10 * time.Minute
	DefaultQuickGrace  = 30 * time.Second
)

// EnvFileVariable names the variable that tells a script where to write the
// variables of the steps after it (PROTOCOL 3.3).
const EnvFileVariable = "PULUMI_ENV"

// Input is everything a plan depends on.
type Input struct {
	Definition api.JobDefinition
	// Environ is the environment that the place gives, as KEY=VALUE: the
	// image's own, or what a process backend lets through. The definition's
	// variables win over it.
	Environ []string
	// Env wins over the definition's variables and reaches every step.
	Env map[string]string
	// Directory is where every step starts; an absolute path.
	Directory string

	// Around has commands of our own that run around the script of a step, by
	// the step's index.
	Around map[int]Around

	// Timeout and StepTimeout are limits that the agent sets; the smaller of
	// these and of the definition's counts. Zero is no limit.
	Timeout, StepTimeout time.Duration
	// IdleTimeout ends a step that has printed nothing for this long. Zero is
	// no limit.
	IdleTimeout time.Duration
	// ChangeGrace and QuickGrace are the time between the interrupt of a cancel
	// and SIGTERM, for operations that change things and for the others. Zero
	// means the default.
	ChangeGrace, QuickGrace time.Duration
}

// Around are commands that run before and after the script of a step, as
// programs and their arguments, in its directory, with its environment, and in
// its log. After runs once the script has succeeded. How they end decides
// nothing; a job that is to stop meanwhile stops.
type Around struct {
	Before []string `json:"before,omitempty"`
	After  []string `json:"after,omitempty"`
}

// Plan is a job, ready to be walked. It holds the steps from index 1 on: index
// 0 is Setup, which belongs to the runner and is never executed, even when the
// definition gives it a script (PROTOCOL 3.2).
type Plan struct {
	Shell []string `json:"shell"` // program and arguments before the script's path
	// ShellIsDefault is set when the shell may be replaced by sh where it is
	// missing. "bash" cannot be told from a shell that nobody chose, because
	// services write it into every definition.
	ShellIsDefault bool          `json:"shellIsDefault"`
	Timeout        time.Duration `json:"timeout"`               // of the whole job; 0 is none
	IdleTimeout    time.Duration `json:"idleTimeout,omitempty"` // without output; 0 is none
	Grace          time.Duration `json:"grace"`                 // from interrupt to SIGTERM
	Stack          string        `json:"stack"`                 // org/project/stack where the environment tells, else ""
	Steps          []Step        `json:"steps"`
}

// Step is one script and the circumstances in which it runs.
type Step struct {
	Index   int           `json:"index"`
	Name    string        `json:"name"`
	Script  string        `json:"script"` // byte for byte what the definition says
	Dir     string        `json:"dir"`    // absolute when Input.Directory is
	MakeDir bool          `json:"makeDir,omitempty"`
	Timeout time.Duration `json:"timeout"` // 0 is none
	Env     []string      `json:"env"`     // KEY=VALUE, sorted by key
	Pulumi  bool          `json:"pulumi"`  // whether the script runs pulumi, for advice after a forced kill

	Around Around `json:"around,omitzero"`
}

// NewPlan makes the plan of a job whose definition passed Validate. It does no
// I/O.
func NewPlan(in Input) Plan {
	def := in.Definition
	p := Plan{
		Shell:       strings.Fields(def.Shell),
		Timeout:     smaller(in.Timeout, def.Timeout.Std()),
		IdleTimeout: in.IdleTimeout,
		Grace:       orDefault(in.QuickGrace, DefaultQuickGrace),
		Stack:       stackOf(def.Env),
		Steps:       []Step{},
	}
	if len(p.Shell) == 0 {
		p.Shell = []string{DefaultShell}
	}
	p.ShellIsDefault = len(p.Shell) == 1 && p.Shell[0] == DefaultShell
	if def.Operation == "" || def.Operation.Changes() {
		p.Grace = orDefault(in.ChangeGrace, DefaultChangeGrace)
	}
	for i, s := range def.Steps {
		if i == 0 {
			continue
		}
		p.Steps = append(p.Steps, Step{
			Index:   i,
			Name:    s.Name,
			Script:  s.Run,
			Dir:     inside(in.Directory, s.WorkingDir),
			MakeDir: i == 1, // nothing before the first step could have made it
			Timeout: smaller(in.StepTimeout, s.Timeout.Std()),
			Env:     stepEnv(in, i),
			Pulumi:  runsPulumi(s.Run),
			Around:  in.Around[i],
		})
	}
	return p
}

// stepEnv is the environment of the step with the given index: the place's, the
// definition's where it is in scope, then Input.Env, each winning over the one
// before.
func stepEnv(in Input, index int) []string {
	env := map[string]string{}
	for _, kv := range in.Environ {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
			env[name] = value
		}
	}
	for name, value := range in.Definition.Env {
		if scope, limited := in.Definition.EnvScopes[name]; limited && !slices.Contains(scope, index) {
			continue
		}
		env[name] = value
	}
	maps.Copy(env, in.Env)
	return environ(env)
}

func environ(env map[string]string) []string {
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

func inside(dir, sub string) string {
	if filepath.IsAbs(sub) {
		return filepath.Clean(sub)
	}
	return filepath.Join(dir, sub)
}

func stackOf(env map[string]string) string {
	org, project, stack := env["PULUMI_CI_ORGANIZATION"], env["PULUMI_CI_PROJECT"], env["PULUMI_CI_STACK"]
	if org == "" || project == "" || stack == "" {
		return ""
	}
	return org + "/" + project + "/" + stack
}

// runsPulumi reports whether a script calls pulumi, or the executor's pulumi
// command, as a word of its own: "pulumi up", but not "pulumi-deploy-executor".
func runsPulumi(script string) bool {
	for rest := script; ; {
		i := strings.Index(rest, "pulumi")
		if i < 0 {
			return false
		}
		before, after := rest[:i], rest[i+len("pulumi"):]
		startsWord := before == "" || strings.ContainsAny(before[len(before)-1:], " \t\n;&|(/\"'")
		endsWord := after == "" || strings.ContainsAny(after[:1], " \t\r\n\"';)")
		if startsWord && endsWord {
			return true
		}
		rest = after
	}
}

// smaller returns the smaller of two limits, where zero is no limit.
func smaller(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
