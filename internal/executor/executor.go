// Package executor is what runs inside a job: it takes over the job file, has
// package workflow walk the steps, and tells the service everything that
// happens: statuses, logs, heartbeats. It reports straight to the service, so
// that a job goes on without the agent that started it; and it keeps a Report in
// a file, which is its word to that agent.
//
// Run is the whole of it. A job is never slowed down by a service that is away:
// statuses and log lines wait in order and are delivered when it is back. Log
// lines that it does not get back for stay in the spool, for the agent to deliver.
package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/gitcred"
	"github.com/longshore-run/longshore/internal/logstream"
	"github.com/longshore-run/longshore/internal/workflow"
)

// Reasons for a job to stop, as they show in its log.
var (
	// ErrCancelled means that whoever started the executor asked it to stop.
	ErrCancelled = errors.New("the job was cancelled")
	// ErrRefused means that the service takes no more calls of this job: it ended
	// the job, or gave it to nobody.
	ErrRefused = errors.New("the service has ended this job")
)

// Variables that an executor adds to the environment of every step.
const (
	EnvExecutor = "LONGSHORE_EXECUTOR"     // path of the executor, for scripts to call
	EnvPid      = "LONGSHORE_EXECUTOR_PID" // its process id, for what must not outlive it
	// EnvCacheState is the path of a file in which the commands of the cache and
	// the installation leave word for each other, and for Run.
	EnvCacheState = "LONGSHORE_CACHE_STATE"
	EnvCacheFile  = "LONGSHORE_CACHE_FILE"   // the path of a file with how the agent's dependency cache is reached
	EnvOIDC       = "PULUMI_OIDC_TOKEN"      // the deployment's OIDC token (PROTOCOL 3.4)
	EnvOIDCFile   = "PULUMI_OIDC_TOKEN_FILE" // the path of a file with it
	oidcDir       = "/mnt/pulumi"            // where scripts expect that file in a container (PROTOCOL 5)
	oidcName      = "pulumi.oidc"
	envFileName   = "PULUMI_ENV"
	containerEnv  = "/PULUMI_ENV" // the literal path that Pulumi's documentation uses
	// EnvGitSocket is where the step that gets the source leaves its credentials
	// for what git asks for later. EnvGitLater is false when it is not to.
	EnvGitSocket = "LONGSHORE_GIT_SOCKET"
	EnvGitLater  = "LONGSHORE_SOURCE_KEEP_CREDENTIALS"
	envGitSSHKey = "LONGSHORE_GIT_SSH_KEY"
	// EnvKept names the directory for what the agent may keep for other jobs.
	EnvKept = "LONGSHORE_KEPT"
	// EnvMirror names the directory of the mirror of repositories, and
	// EnvMirrorLimit how large a new entry may be.
	EnvMirror      = "LONGSHORE_SOURCE_MIRROR"
	EnvMirrorLimit = "LONGSHORE_SOURCE_MIRROR_LIMIT"
)

// Options configure Run. JobFile is required.
type Options struct {
	JobFile string    // "-" means standard input
	Stdin   io.Reader // what "-" reads; default os.Stdin
	// Stdout gets the final Report as one line of JSON, and nothing else. May be nil.
	Stdout     io.Writer
	Environ    []string // of the place; steps get it. Normally os.Environ()
	Executable string   // absolute path of this program, for scripts to call
	Version    string

	// Signals brings SIGTERM and SIGINT; the first cancels the job, those after
	// it change nothing. May be nil.
	Signals <-chan os.Signal
	// Supervisor reaps and kills what steps leave behind. May be nil.
	Supervisor *workflow.Supervisor
	// HTTP, when not nil, makes the calls to the service.
	HTTP *http.Client
	Log  *zap.Logger // of the program; default: nothing is logged
}

// Run runs one job from its job file to its end and returns the exit code that
// stands for it. An error means that there was nothing to run: the job file
// could not be read, or names no service. After an error nothing was told to
// anybody.
func Run(ctx context.Context, o Options) (exitCode int, err error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	file, defErr, err := takeJobFile(o.JobFile, o.Stdin, o.Log)
	if err != nil {
		return api.ExitNotBegun, err
	}
	e, err := newExecution(o, file)
	if err != nil {
		return api.ExitNotBegun, err
	}
	defer e.close()
	if defErr == nil {
		defErr = file.Definition.Validate()
	}
	exitCode = e.run(ctx, defErr)
	e.report.say(o.Stdout)
	return exitCode, nil
}

// execution is the state of one Run.
type execution struct {
	Options
	file    jobFile
	job     *client.Job
	client  *client.Client
	private string // directory of our own
	streams *logstream.Streams
	courier *courier
	report  *reportFile
	git     *gitcred.Server // nil for none
}

func newExecution(o Options, file jobFile) (*execution, error) {
	c, err := client.New(client.Options{
		BaseURL:      file.ServiceURL,
		UserAgent:    "longshore-executor/" + o.Version,
		HTTP:         o.HTTP,
		Retries:      -1, // until the context says that it is enough
		RetryWait:    500 * time.Millisecond,
		RetryMaxWait: 10 * time.Second,
		Log:          o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("job file: serviceURL: %w", err)
	}
	private, err := privateDir(filepath.Dir(file.ReportPath))
	if err != nil {
		return nil, err
	}
	e := &execution{Options: o, file: file, client: c, job: c.Job(file.JobID, file.JobToken), private: private}
	e.report = &reportFile{path: file.ReportPath, log: o.Log}
	e.streams = logstream.New(logstream.Options{
		Sink:     e.job,
		Secrets:  file.secrets(o.Environ),
		SpoolDir: file.SpoolDirectory, // not in private, which ends with us
		Log:      o.Log,
	})
	e.serveGit()
	e.courier = newCourier(e.job, e.streams, e.report, o.Log)
	return e, nil
}

// serveGit answers what git asks for later in the job. A job that does not need
// it goes on without.
func (e *execution) serveGit() {
	if e.Executable == "" || e.file.Env[EnvGitLater] == "false" {
		return
	}
	var err error
	if e.git, err = gitcred.Listen(e.private, func(s string) { e.streams.AddSecret(s) }); err != nil {
		e.git = nil
		e.Log.Warn("git gets no credentials after the source was got", zap.Error(err))
	}
}

// gitEnv adds to env what lets git ask.
func (e *execution) gitEnv(env map[string]string) {
	if e.git == nil {
		return
	}
	all := map[string]string{}
	for _, kv := range e.Environ {
		name, value, _ := strings.Cut(kv, "=")
		all[name] = value
	}
	maps.Copy(all, e.file.Definition.Env)
	maps.Copy(all, env)
	maps.Copy(env, e.git.Environ(all, e.Executable, e.file.Definition.Env[envGitSSHKey] != ""))
	env[EnvGitSocket] = e.git.Socket()
}

func (e *execution) close() {
	if e.git != nil {
		e.git.Close()
	}
	e.client.CloseIdle()
	_ = os.RemoveAll(e.private)
}

// run walks the job and delivers what there is to say. bad is what is wrong with
// the definition, or nil.
func (e *execution) run(ctx context.Context, bad error) int {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What speaks to the service outlives the job, until all is delivered.
	deliverCtx, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)

	var beside sync.WaitGroup
	defer beside.Wait()
	sideCtx, endSide := context.WithCancelCause(deliverCtx)
	defer endSide(nil)
	beside.Go(func() { e.courier.run(deliverCtx, cancel) })
	beside.Go(func() { e.heartbeats(sideCtx, cancel) })
	beside.Go(func() { e.watchSignals(sideCtx, cancel) })
	beside.Go(func() { e.watchLogs(sideCtx, cancel) })

	e.courier.Step(0, api.StepSucceeded)
	var res workflow.Result
	if bad != nil {
		res = e.refuse(bad)
	} else {
		res = workflow.Run(ctx, workflow.NewPlan(e.input()), e.workflowOptions())
	}
	e.report.end(res.Outcome, res.Message, e.cacheOutcomes())
	delivered := e.deliver(deliverCtx, giveUp)
	e.Log.Info("job ended", zap.String("outcome", string(res.Outcome)), zap.Int("step", res.Step), zap.Bool("delivered", delivered))
	if !delivered && deliverCtx.Err() != nil {
		// The report keeps what the job came to: the agent may be luckier in
		// telling the service.
		return api.ExitServiceLost
	}
	return res.Outcome.ExitCode()
}

// deliver waits until the service has everything, for the deliver timeout at
// most.
func (e *execution) deliver(ctx context.Context, giveUp context.CancelCauseFunc) bool {
	limit := orDefault(e.file.DeliverTimeout.Std(), 10*time.Minute)
	timer := time.AfterFunc(limit, func() {
		giveUp(fmt.Errorf("the service could not be reached for %s after the end of the job", limit))
	})
	defer timer.Stop()
	statuses := e.courier.finish(ctx)
	logs := e.streams.Close(ctx)
	delivered := statuses == nil && logs == nil && e.streams.Delivered()
	if delivered {
		e.report.delivered()
		return true
	}
	e.Log.Error("not everything was delivered", zap.NamedError("statuses", statuses), zap.NamedError("logs", logs))
	return false
}

// refuse fails the first step of a definition that cannot be run. Step 0 belongs
// to the agent, which numbers the lines of its log.
func (e *execution) refuse(bad error) workflow.Result {
	index := min(1, max(0, len(e.file.Definition.Steps)-1))
	w := e.streams.Step(index)
	w.Line("longshore: this job cannot be run, its definition is wrong:")
	for _, err := range flatten(bad) {
		w.Line("longshore: %v", err)
	}
	_ = w.Close()
	e.courier.Step(index, api.StepFailed)
	return workflow.Result{Outcome: api.OutcomeBadDefinition, Step: index, Message: "bad job definition: " + oneLine(bad)}
}

func (e *execution) input() workflow.Input {
	f := e.file
	env := map[string]string{}
	for name, value := range f.Env {
		env[name] = value
	}
	if e.Executable != "" {
		env[EnvExecutor] = e.Executable
	}
	env[EnvPid] = strconv.Itoa(os.Getpid())
	env[EnvKept] = filepath.Join(filepath.Dir(f.ReportPath), api.KeptName)
	if f.MirrorDirectory != "" && f.MirrorLimit > 0 {
		env[EnvMirror], env[EnvMirrorLimit] = f.MirrorDirectory, strconv.FormatInt(f.MirrorLimit, 10)
	}
	e.gitEnv(env)
	if f.OIDCToken != "" {
		env[EnvOIDC] = f.OIDCToken
		if path := e.writeOIDC(); path != "" {
			env[EnvOIDCFile] = path
		}
	}
	env[EnvCacheState] = filepath.Join(e.private, cacheStateName)
	if path := e.writeCache(); path != "" {
		env[EnvCacheFile] = path
	}
	dir := f.Directory
	if dir == "" {
		dir = "."
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return workflow.Input{
		Definition:  f.Definition,
		Environ:     e.Environ,
		Env:         env,
		Directory:   dir,
		Around:      aroundInstall(f.Definition, f.Cache, e.Executable),
		Timeout:     f.Timeout.Std(),
		StepTimeout: f.StepTimeout.Std(),
		IdleTimeout: f.IdleTimeout.Std(),
		ChangeGrace: f.ChangeGrace.Std(),
		QuickGrace:  f.QuickGrace.Std(),
	}
}

func (e *execution) workflowOptions() workflow.Options {
	envFile := filepath.Join(e.private, envFileName)
	// In a container of its own a job may use the path that is in the
	// documentation; on a shared host it would meet other jobs there.
	if inContainer() && canCreate(containerEnv) {
		envFile = containerEnv
	}
	return workflow.Options{
		Reporter:   e.courier,
		PrivateDir: e.private,
		EnvFile:    envFile,
		Supervisor: e.Supervisor,
		OwnMemory:  inContainer(),
		Exported: func(name, value string) {
			if looksSecret(name) {
				e.streams.AddSecret(value)
			}
		},
	}
}

// writeOIDC writes the OIDC token where scripts look for it in a container, or
// else into our own directory, and returns the path.
func (e *execution) writeOIDC() string {
	dirs := []string{e.private}
	if inContainer() {
		dirs = []string{oidcDir, e.private}
	}
	for _, dir := range dirs {
		if os.MkdirAll(dir, 0o700) != nil {
			continue
		}
		path := filepath.Join(dir, oidcName)
		if os.WriteFile(path, []byte(e.file.OIDCToken), 0o600) == nil {
			return path
		}
	}
	e.Log.Warn("oidc token file cannot be written")
	return ""
}

func inContainer() bool { return os.Getpid() == 1 }

func canCreate(path string) bool {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
