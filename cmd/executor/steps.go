package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/deps"
	"github.com/longshore-run/longshore/internal/executor"
	"github.com/longshore-run/longshore/internal/gitcred"
	"github.com/longshore-run/longshore/internal/gitsrc"
	"github.com/longshore-run/longshore/internal/mirror"
	"github.com/longshore-run/longshore/internal/pulumi"
)

// learnedHosts is the file of the host keys that a checkout has learned, among
// what is left for the agent.
const learnedHosts = "known_hosts"

func (p *program) getsource() *cobra.Command {
	parent := lenient(&cobra.Command{
		Use:   "getsource",
		Short: "Put the source of a deployment into a directory",
		Long: "Put the source of a deployment into a directory. Credentials come by the environment: LONGSHORE_GIT_TOKEN,\n" +
			"LONGSHORE_GIT_USERNAME and LONGSHORE_GIT_PASSWORD, or LONGSHORE_GIT_SSH_KEY and LONGSHORE_GIT_SSH_PASSPHRASE.\n" +
			"LONGSHORE_GIT_KNOWN_HOSTS holds lines of a known_hosts file, beside those of the place.\n" +
			"LONGSHORE_SOURCE_ENGINE is git (the command), go-git (built in) or auto, the default: git where there is one.\n" +
			"With LONGSHORE_SOURCE_SPARSE=false every file is got, also of a large repository of which --repoDir is a small part;\n" +
			"LONGSHORE_SOURCE_SUBMODULES=false leaves submodules out, LONGSHORE_SOURCE_LFS=false the files of Git LFS.\n" +
			"LONGSHORE_SOURCE_CA holds certificates (PEM) to trust beside those of the place, LONGSHORE_SOURCE_TIMEOUT limits the\n" +
			"time (1h). HTTP_PROXY, HTTPS_PROXY and NO_PROXY are heeded.",
		RunE: unknownCommand,
	})
	var r gitsrc.Request
	git := lenient(&cobra.Command{
		Use:   "git",
		Short: "Check out one commit of a git repository",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := need(c, "repoURL", "workDir"); err != nil {
				return err
			}
			return p.checkout(c.Context(), r)
		},
	})
	git.Flags().StringVar(&r.URL, "repoURL", "", "URL of the repository")
	git.Flags().StringVar(&r.Dir, "workDir", "", "directory for the work tree")
	git.Flags().StringVar(&r.Branch, "branch", "", "branch, tag or full ref name")
	git.Flags().StringVar(&r.Commit, "commit", "", "commit, instead of a branch")
	git.Flags().StringVar(&r.RepoDir, "repoDir", "", "folder of the project in the repository")

	var sourceURL, workDir string
	template := lenient(&cobra.Command{
		Use:   "template",
		Short: "Get a template by its URL",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := need(c, "sourceUrl", "workDir"); err != nil {
				return err
			}
			find := func(context.Context, string) (gitsrc.Request, error) { return gitsrc.Template(sourceURL) }
			if strings.HasPrefix(sourceURL, registryScheme) {
				find = p.registryTemplate
			}
			t, err := find(c.Context(), sourceURL)
			if err != nil {
				return err
			}
			t.Dir, t.Lift = workDir, true
			return p.checkout(c.Context(), t)
		},
	})
	template.Flags().StringVar(&sourceURL, "sourceUrl", "", "URL of the template, such as https://host/owner/repo/tree/main/folder, https://host/template.tar.gz or registry://templates/source/publisher/name")
	template.Flags().StringVar(&workDir, "workDir", "", "directory for the work tree")
	parent.AddCommand(git, template)
	return parent
}

// unknownCommand keeps a group of commands from succeeding when it is asked for
// one that it does not have.
func unknownCommand(c *cobra.Command, args []string) error {
	return usageError{fmt.Errorf("%s: unknown command %q", c.CommandPath(), strings.Join(args, " "))}
}

func (p *program) checkout(ctx context.Context, r gitsrc.Request) error {
	r.Progress = p.stdout
	r.Engine = gitsrc.Engine(p.getenv("LONGSHORE_SOURCE_ENGINE"))
	r.Full = p.getenv("LONGSHORE_SOURCE_SPARSE") == "false"
	r.NoSubmodules = p.getenv("LONGSHORE_SOURCE_SUBMODULES") == "false"
	r.NoLFS = p.getenv("LONGSHORE_SOURCE_LFS") == "false"
	r.Auth = gitsrc.Auth{
		Token:         p.getenv("LONGSHORE_GIT_TOKEN"),
		Username:      p.getenv("LONGSHORE_GIT_USERNAME"),
		Password:      p.getenv("LONGSHORE_GIT_PASSWORD"),
		SSHKey:        []byte(p.getenv("LONGSHORE_GIT_SSH_KEY")),
		SSHPassphrase: p.getenv("LONGSHORE_GIT_SSH_PASSPHRASE"),
	}
	if r.Anonymous {
		r.Auth = gitsrc.Auth{}
	}
	r.CA = []byte(p.getenv("LONGSHORE_SOURCE_CA"))
	if limit := p.getenv("LONGSHORE_SOURCE_TIMEOUT"); limit != "" {
		var err error
		if r.Timeout, err = time.ParseDuration(limit); err != nil {
			return fmt.Errorf("LONGSHORE_SOURCE_TIMEOUT: %w", err)
		}
	}
	kept := p.getenv(executor.EnvKept)
	if dir := p.getenv(executor.EnvMirror); dir != "" && kept != "" {
		limit, err := strconv.ParseInt(p.getenv(executor.EnvMirrorLimit), 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", executor.EnvMirrorLimit, err)
		}
		r.Mirror = &mirror.Shelf{Dir: dir, Out: kept, Limit: limit}
	}
	if kept != "" && p.getenv("LONGSHORE_SOURCE_ACCEPT_NEW_HOSTS") == "true" {
		r.LearnHosts = filepath.Join(kept, learnedHosts)
	}
	remove, err := p.knownHosts(&r)
	if err != nil {
		return err
	}
	defer remove()
	later, err := r.Later()
	if err != nil {
		return err
	}
	if c := gitcred.GitHub(p.getenv, later.Scheme, later.Host); c != nil && later.Auth.Password == "" && !r.Anonymous {
		r.Auth = gitsrc.Auth{Token: c.Password}
	}
	return untilSignal(ctx, func(ctx context.Context) error {
		if _, err := gitsrc.Checkout(ctx, r); err != nil {
			return err
		}
		p.forLater(ctx, later)
		return nil
	})
}

// forLater leaves the credentials of a checkout that succeeded with the executor
// of the job, for what git asks for in later steps. The step does not fail for it.
func (p *program) forLater(ctx context.Context, later gitsrc.Later) {
	socket := p.getenv(executor.EnvGitSocket)
	if socket == "" {
		return
	}
	var err error
	switch auth := later.Auth; {
	case later.Scheme == "ssh" && len(auth.SSHKey) > 0:
		hosts := gitsrc.PublicHostKeys + p.getenv("LONGSHORE_GIT_KNOWN_HOSTS") + "\n"
		if kept := p.getenv(executor.EnvKept); kept != "" {
			learned, _ := os.ReadFile(filepath.Join(kept, learnedHosts)) // most jobs have none
			hosts += string(learned)
		}
		err = gitcred.PutKey(ctx, socket, gitcred.Key{PEM: auth.SSHKey, Passphrase: auth.SSHPassphrase, KnownHosts: hosts})
	case later.Scheme == "https" || later.Scheme == "http":
		if auth.Password != "" {
			err = gitcred.Put(ctx, socket, gitcred.Credential{
				Scheme: later.Scheme, Host: later.Host, Username: auth.Username, Password: auth.Password, AnyUser: auth.Token != "",
			})
		}
	}
	if err != nil {
		fmt.Fprintf(p.stdout, "note: git gets no credentials in later steps: %v\n", err)
	}
}

// credential is what git calls in later steps.
func (p *program) credential() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use:    "credential {get|store|erase}",
		Short:  "Answer git, as a credential helper, with the credentials of the job's source",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return gitcred.Help(c.Context(), args[0], socket, p.getenv, os.Stdin, p.stdout)
		},
	}
	c.Flags().StringVar(&socket, "socket", "", "socket of the job's executor")
	return c
}

// knownHosts lets r trust the SSH hosts of LONGSHORE_GIT_KNOWN_HOSTS, which holds
// the lines of a known_hosts file, beside those that the place knows.
func (p *program) knownHosts(r *gitsrc.Request) (remove func(), err error) {
	lines := p.getenv("LONGSHORE_GIT_KNOWN_HOSTS")
	if lines == "" {
		return func() {}, nil
	}
	file, err := os.CreateTemp("", "longshore-known-hosts-")
	if err != nil {
		return nil, fmt.Errorf("keep the known SSH hosts: %w", err)
	}
	remove = func() { os.Remove(file.Name()) }
	if _, err := file.WriteString(lines + "\n"); err != nil {
		remove()
		return nil, fmt.Errorf("keep the known SSH hosts: %w", err)
	}
	if err := file.Close(); err != nil {
		remove()
		return nil, fmt.Errorf("keep the known SSH hosts: %w", err)
	}
	r.KnownHosts = append(gitsrc.DefaultKnownHosts(p.getenv), file.Name())
	return remove, nil
}

func (p *program) dependencies() *cobra.Command {
	parent := lenient(&cobra.Command{Use: "dependencies", Short: "Install what a program depends on", RunE: unknownCommand})
	var dir string
	download := lenient(&cobra.Command{
		Use:   "download",
		Short: "Install the dependencies of the project in a directory, by its Pulumi.yaml and lock file",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return untilSignal(c.Context(), func(ctx context.Context) error {
				state := p.readState()
				err := deps.Download(ctx, dir, p.stdout, p.environ, state != nil && state.installed())
				if state != nil {
					state.Failed = err != nil
				}
				return errors.Join(err, p.writeState(state))
			})
		},
	})
	download.Flags().StringVar(&dir, "workDir", ".", "directory of the project")
	parent.AddCommand(download)
	return parent
}

func (p *program) pulumi() *cobra.Command {
	var (
		stack, dir string
		debug      bool
	)
	var operations []string
	for _, op := range api.Operations() {
		operations = append(operations, string(op))
	}
	c := lenient(&cobra.Command{
		Use:       "pulumi {" + strings.Join(operations, "|") + "}",
		Short:     "Run one Pulumi operation on a stack",
		Long:      "Run one Pulumi operation on a stack and end with pulumi's exit code. However many signals arrive, pulumi gets\none SIGINT; a SIGTERM that follows is passed on.",
		ValidArgs: operations,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 || !api.Operation(args[0]).Valid() {
				return usageError{fmt.Errorf("pulumi: want one operation of %s", strings.Join(operations, ", "))}
			}
			if err := need(c, "stackIdentity"); err != nil {
				return err
			}
			return p.operate(c.Context(), pulumi.Request{Operation: api.Operation(args[0]), StackIdentity: stack, Dir: dir, Debug: debug})
		},
	})
	c.Flags().StringVar(&stack, "stackIdentity", "", "organization/project/stack")
	c.Flags().StringVar(&dir, "workDir", ".", "directory of the project")
	c.Flags().BoolVar(&debug, "debug", false, "have pulumi print debugging output")
	return c
}

func (p *program) operate(ctx context.Context, r pulumi.Request) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ignoreBrokenPipes()
	r.Signals, r.Env = signals, p.environ
	r.Parent, _ = strconv.Atoi(p.getenv(executor.EnvPid))
	r.Stdout = &sturdyWriter{out: p.stdout}
	r.Stderr = r.Stdout
	if !sameFile(p.stdout, p.stderr) {
		r.Stderr = &sturdyWriter{out: p.stderr}
	}
	code, err := pulumi.Run(ctx, r)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// sturdyWriter goes on when its reader is gone. When the executor that reads our
// output dies, pulumi must be able to finish and save its state.
type sturdyWriter struct {
	out io.Writer

	mu     sync.Mutex
	broken bool
}

func (w *sturdyWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.broken {
		_, err := w.out.Write(b)
		w.broken = err != nil
	}
	return len(b), nil
}

func sameFile(a, b io.Writer) bool {
	fa, okA := a.(*os.File)
	fb, okB := b.(*os.File)
	if !okA || !okB {
		return a == b
	}
	ia, errA := fa.Stat()
	ib, errB := fb.Stat()
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}

func (p *program) getenv(name string) string {
	value := ""
	for _, kv := range p.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

// untilSignal runs f with a context that ends at the first SIGINT or SIGTERM.
func untilSignal(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return f(ctx)
}
