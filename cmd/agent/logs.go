package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/config"
	"github.com/longshore-run/longshore/internal/telemetry"
	"github.com/longshore-run/longshore/internal/undelivered"
)

func newLogsCommand(environ []string, stderr io.Writer) *cobra.Command {
	logs := &cobra.Command{
		Use:   "logs",
		Short: "Deal with logs of jobs that the service has not taken yet",
	}
	var file string
	var timeout time.Duration
	push := &cobra.Command{
		Use:   "push [DIRECTORY...]",
		Short: "Deliver logs that wait in the agent's working directory",
		Long: `push delivers the logs of jobs that ended while the service was away. They wait
below "undelivered" in the agent's working directory, one directory for each
job; name some of those to deliver only them.

The service takes the log of a job for as long as the job's token lives, which is
some minutes after its end. What it refuses is lost: push says how many lines,
and removes them. An agent may run meanwhile.

Exit status: 0 everything was delivered, 1 something was not, 2 wrong usage.`,
		Example: `  longshore-agent logs push
  longshore-agent logs push /var/lib/longshore-agent/undelivered/01a21094-13b8-723e-8a7b-99b17e61c99e`,
		RunE: func(cmd *cobra.Command, args []string) error {
			home, program := getenv(environ, "HOME"), ""
			if path, err := os.Executable(); err == nil {
				program = path
			}
			dir, err := config.WorkingDirectory(config.Input{
				Flags: cmd.Flags(), Environ: environ, File: file, Directories: config.SearchPath(home, program),
			})
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return (&pusher{out: cmd.OutOrStdout(), stderr: stderr, timeout: timeout}).push(ctx, undelivered.In(dir), args)
		},
	}
	push.Flags().StringVar(&file, "config", "", "Configuration file, for the working directory; none is looked for when it is named.")
	push.Flags().String("working-directory", "", "The agent's working directory, when it is not the configured one.")
	push.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "How long to try for each job when the service is away.")
	logs.AddCommand(push)
	return logs
}

// pusher delivers logs for a person who watches.
type pusher struct {
	out, stderr io.Writer
	timeout     time.Duration
}

// push delivers the jobs in the named directories, or all of a store.
func (p *pusher) push(ctx context.Context, store undelivered.Store, dirs []string) error {
	var jobs []undelivered.Job
	var err error
	if len(dirs) == 0 {
		if jobs, err = store.List(); err != nil {
			err = &failure{err}
		}
	}
	for _, dir := range dirs {
		job, openErr := undelivered.Open(filepath.Clean(dir))
		if openErr != nil {
			return openErr
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 && err == nil {
		fmt.Fprintln(p.out, "No logs wait to be delivered.")
	}
	for _, job := range jobs {
		if pushErr := p.pushOne(ctx, job); pushErr != nil {
			err = &failure{errors.Join(err, pushErr)}
		}
	}
	return err
}

func (p *pusher) pushOne(ctx context.Context, job undelivered.Job) error {
	name := "deployment " + job.DeploymentID + " (job " + job.JobID + ")"
	log, err := telemetry.NewLogger(p.stderr, "console", "warn")
	if err != nil {
		return err
	}
	c, err := client.New(client.Options{BaseURL: job.ServiceURL, UserAgent: "longshore-agent/" + version + " (logs push)", Log: log})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer c.CloseIdle()
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, errors.New("the service could not be reached in time (see --timeout)"))
	defer cancel()
	res, err := job.Push(ctx, c.Job(job.JobID, job.JobToken), log)
	if res.Delivered > 0 || err == nil {
		fmt.Fprintf(p.out, "%s: %d lines delivered\n", name, res.Delivered)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
