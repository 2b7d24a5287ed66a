package workflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Reporter hears how a job goes. Its methods are called from one goroutine, in
// order, and must not wait for the service: a job goes on while the service is
// away.
type Reporter interface {
	// Step says that a step changed its status.
	Step(index int, s api.StepStatus)
	// Output returns where the log of a step goes. It is written to by two
	// goroutines and closed before the step's last status is told.
	Output(index int) io.WriteCloser
}

// Options say how to walk a plan.
type Options struct {
	Reporter Reporter
	// PrivateDir is an existing directory that only this user can enter. Each
	// step's script lies in it while the step runs.
	PrivateDir string
	// EnvFile is the file that PULUMI_ENV names, unless the job's own
	// environment names another. It is made when it does not exist.
	EnvFile string
	// Supervisor, when not nil, is used to find and kill what left the process
	// group of its step.
	Supervisor *Supervisor
	// Exported, when not nil, hears of each variable that a step set by
	// PULUMI_ENV, before the next step starts.
	Exported func(name, value string)
	// KillGrace is the time between SIGTERM and SIGKILL; 10 s when zero.
	KillGrace time.Duration
	// OwnMemory says that nobody but this process and the steps is in its control
	// group, as in a container. Then a step is interrupted when the memory of the
	// group runs short, and one of which the kernel killed a part has failed,
	// whatever its exit code.
	OwnMemory bool

	memory *memory // for tests
}

// Result is how a job ended.
type Result struct {
	Outcome api.Outcome
	Step    int    // index of the last step that was touched
	Message string // why, in one line without secrets; empty after success
}

// Run walks a plan to its end. It returns when every step has succeeded, when
// one failed, or when the job was stopped: by ctx, whose cause's text goes into
// the log, by a timeout, or because a step printed nothing for too long. A stop
// follows one ladder: one SIGINT to the process group of the step, the plan's
// grace, counted down in the log, SIGTERM, KillGrace, SIGKILL. A step that ends
// with exit code 0 has succeeded, also
// when it was being stopped: work that was finished is not rewritten.
//
// Processes that a step leaves in the background live on until the job ends, as
// they would in a container; what they print after their step is not recorded.
func Run(ctx context.Context, p Plan, o Options) Result {
	if o.KillGrace == 0 {
		o.KillGrace = 10 * time.Second
	}
	w := &walker{plan: p, opts: o, exported: map[string]string{}, warned: map[string]bool{}, memory: o.memory}
	if w.memory == nil {
		w.memory = findMemory("/sys/fs/cgroup", "/proc/self/cgroup")
	}
	if p.Timeout > 0 {
		w.deadline = time.Now().Add(p.Timeout)
	}
	defer w.endBackground()

	res := Result{Outcome: api.OutcomeSucceeded}
	for _, s := range p.Steps {
		res.Step = s.Index
		end := w.step(ctx, s)
		if end.ok {
			continue
		}
		res.Outcome, res.Message = end.outcome, end.message
		break
	}
	return res
}

// walker is the state of one Run.
type walker struct {
	plan     Plan
	opts     Options
	deadline time.Time         // of the job; zero is none
	exported map[string]string // by PULUMI_ENV, so far
	warned   map[string]bool   // lines of that file that the log named already
	memory   *memory

	held    []*os.File // outputs that background processes hold open
	drained sync.WaitGroup
}

// ending is how one step ended.
type ending struct {
	ok      bool
	outcome api.Outcome // when not ok
	message string
}

func (w *walker) step(ctx context.Context, s Step) ending {
	log := &stepLog{out: w.opts.Reporter.Output(s.Index)}
	var end ending
	if why := w.stopped(ctx); why != nil {
		log.say("%s, so this step was not started", why.text)
		end = ending{outcome: why.outcome, message: fmt.Sprintf("%s before step %d (%q)", why.text, s.Index, s.Name)}
	} else {
		w.opts.Reporter.Step(s.Index, api.StepRunning)
		end = w.execute(ctx, s, log)
	}
	_ = log.out.Close()
	status := api.StepSucceeded
	if !end.ok {
		status = api.StepFailed
	}
	w.opts.Reporter.Step(s.Index, status)
	return end
}

func (w *walker) execute(ctx context.Context, s Step, log *stepLog) ending {
	log.command(s.Script)
	fail := func(err error) ending {
		log.say("%v", err)
		return ending{outcome: api.OutcomeStepFailed, message: fmt.Sprintf("step %d (%q): %v", s.Index, s.Name, err)}
	}
	env := w.envOf(s, log)
	if err := workingDir(s); err != nil {
		return fail(err)
	}
	shell, note, err := findShell(w.plan, env, s.Dir)
	if err != nil {
		return fail(err)
	}
	if note != "" {
		log.say("%s", note)
	}
	script, remove, err := w.script(shell[0], s)
	if err != nil {
		return fail(err)
	}
	defer remove()

	if why := w.beside(ctx, s, s.Around.Before, env, log); why != nil {
		return ending{outcome: why.outcome, message: fmt.Sprintf("%s in step %d (%q)", why.text, s.Index, s.Name)}
	}
	killsBefore := w.memory.kills()
	p, err := w.start(append(shell, script), s.Dir, environ(env), log)
	if err != nil {
		return fail(err)
	}
	why, forced := w.await(ctx, p, s, log)
	w.collect(p, why != nil, log)
	// Where others share the memory, only a step that died of a kill can have
	// been meant.
	short := w.memory.kills() > killsBefore && (w.opts.OwnMemory || p.killed())
	if s.Pulumi && (forced || short && p.verdict() != "") {
		w.adviseAfterKill(log)
	}
	end := w.judge(p, s, why, short, log, env[EnvFileVariable])
	if end.ok {
		// The script has done its work, whatever ends this; the next step sees
		// that the job is to stop.
		_ = w.beside(ctx, s, s.Around.After, env, log)
	}
	return end
}

// beside runs a command around the script of a step. It returns why the job is
// to stop, when it is.
func (w *walker) beside(ctx context.Context, s Step, argv []string, env map[string]string, log *stepLog) *stop {
	if len(argv) == 0 {
		return nil
	}
	if why := w.stopped(ctx); why != nil {
		return why
	}
	p, err := w.start(argv, s.Dir, environ(env), log)
	if err != nil {
		log.say("%s: %v; going on without", filepath.Base(argv[0]), err)
		return nil
	}
	why, _ := w.await(ctx, p, s, log)
	w.collect(p, why != nil, log)
	if verdict := p.verdict(); verdict != "" && why == nil {
		log.say("%s %s; going on without", strings.Join(argv[:min(3, len(argv))], " "), verdict)
	}
	return why
}

// judge decides how a step that ran has ended. short is set when the kernel
// killed a process of the step because memory ran out.
func (w *walker) judge(p *proc, s Step, why *stop, short bool, log *stepLog, envFile string) ending {
	verdict := p.verdict()
	if verdict == "" && !short {
		if err := w.readEnvFile(envFile, log); err != nil {
			log.say("%v", err)
			return ending{outcome: api.OutcomeStepFailed, message: fmt.Sprintf("step %d (%q): %v", s.Index, s.Name, err)}
		}
		return ending{ok: true}
	}
	if verdict != "" {
		log.say("the command %s", verdict)
	}
	if short {
		log.say("out of memory (%s): the kernel killed a process of this step. %s", w.memory, adviseMemory)
	} else if why != nil && why.outcome == api.OutcomeOutOfMemory {
		log.say("out of memory (%s): the step was ended before the kernel would have killed a part of it. %s", w.memory, adviseMemory)
	}
	if why == nil && short || why != nil && why.outcome == api.OutcomeOutOfMemory {
		why = &stop{api.OutcomeOutOfMemory, fmt.Sprintf("out of memory (%s)", w.memory)}
	}
	if why != nil {
		return ending{outcome: why.outcome, message: fmt.Sprintf("%s in step %d (%q)", why.text, s.Index, s.Name)}
	}
	return ending{outcome: api.OutcomeStepFailed, message: fmt.Sprintf("step %d (%q) %s", s.Index, s.Name, verdict)}
}

const adviseMemory = "Give jobs more memory (job_memory), or let this one use less."

// workingDir makes sure that a step can start where it should.
func workingDir(s Step) error {
	if s.MakeDir {
		if err := os.MkdirAll(s.Dir, 0o755); err != nil { //nolint:gosec // the job's own directory, which its user may share
			return fmt.Errorf("make the working directory: %w", err)
		}
	}
	info, err := os.Stat(s.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the working directory %s does not exist: check the folder in the deployment's source settings", s.Dir)
	case err != nil:
		return fmt.Errorf("working directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("the working directory %s is a file: check the folder in the deployment's source settings", s.Dir)
	}
	return nil
}

// script writes the step's script, byte for byte, where only this user can read
// it. The file goes when the step has ended.
func (w *walker) script(shell string, s Step) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp(w.opts.PrivateDir, "step-")
	if err != nil {
		return "", nil, fmt.Errorf("make a place for the script: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) }
	path = filepath.Join(dir, scriptName(shell, s.Index))
	if err := os.WriteFile(path, []byte(s.Script), 0o600); err != nil {
		remove()
		return "", nil, fmt.Errorf("write the script: %w", err)
	}
	return path, remove, nil
}

// envOf is the environment of a step, with what earlier steps exported.
func (w *walker) envOf(s Step, log *stepLog) map[string]string {
	env := make(map[string]string, len(s.Env)+len(w.exported)+1)
	for _, kv := range s.Env {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	for name, value := range w.exported {
		env[name] = value
	}
	path := env[EnvFileVariable]
	if !filepath.IsAbs(path) {
		path = w.opts.EnvFile
	}
	if err := touch(path); err != nil && path != w.opts.EnvFile {
		log.say("%s cannot be used for %s: %v; using %s", path, EnvFileVariable, err, w.opts.EnvFile)
		path = w.opts.EnvFile
		err = touch(path)
		_ = err // reading it says so
	}
	env[EnvFileVariable] = path
	return env
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// readEnvFile takes over what the step wrote for the steps after it. A file that
// was removed says nothing.
func (w *walker) readEnvFile(path string, log *stepLog) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the variables in %s: %w", EnvFileVariable, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file any more: append to it, do not replace it", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, MaxEnvFileBytes+1))
	if err != nil {
		return fmt.Errorf("read the variables in %s: %w", EnvFileVariable, err)
	}
	if len(content) > MaxEnvFileBytes {
		return fmt.Errorf("%s holds more than %d bytes: pass large values to later steps in a file of their own", path, MaxEnvFileBytes)
	}
	vars, problems := ParseEnvFile(string(content))
	for _, problem := range problems {
		if !w.warned[problem] {
			w.warned[problem] = true
			log.say("%s: %s; left out", EnvFileVariable, problem)
		}
	}
	for _, v := range vars {
		if old, known := w.exported[v.Name]; (!known || old != v.Value) && w.opts.Exported != nil {
			w.opts.Exported(v.Name, v.Value)
		}
		w.exported[v.Name] = v.Value
	}
	return nil
}

// collect reads the rest of a step's output. What background processes of a
// step that was not stopped go on printing is dropped, not refused: a proxy
// that was started for later steps must not die of a broken pipe.
func (w *walker) collect(p *proc, wasStopped bool, log *stepLog) {
	if !p.output.finish() || wasStopped {
		_ = p.output.in.Close()
		return
	}
	log.say("a process in the background goes on; what it prints from here on is not recorded")
	in := p.output.in
	w.held = append(w.held, in)
	w.drained.Go(func() { discard(in) })
}

// endBackground ends what the steps left running.
func (w *walker) endBackground() {
	if w.opts.Supervisor != nil {
		w.opts.Supervisor.EndAll(2 * time.Second)
	}
	for _, f := range slices.Backward(w.held) {
		_ = f.Close()
	}
	w.drained.Wait()
}
