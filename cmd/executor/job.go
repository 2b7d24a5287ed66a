package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/longshore-run/longshore/internal/executor"
	"github.com/longshore-run/longshore/internal/workflow"
)

// memoryLimit makes the garbage collector work harder before an executor takes
// memory that belongs to the job.
const memoryLimit = 40 << 20

func (p *program) runCommand() *cobra.Command {
	var jobFile string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run one job from its job file (what an agent starts)",
		Long: "Run one job. The job file is read and removed first thing. SIGTERM or SIGINT cancels the job: its step\n" +
			"gets one SIGINT, a grace that is counted down in its log, SIGTERM, and is killed at last.\n\n" +
			"Exit codes: 0 the job succeeded, 10 a step failed, 11 bad definition, 12 cancelled, 13 timed out,\n" +
			"14 the service could not be told how it ended, 1 no job file; anything else is a crash.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return p.runJob(c.Context(), jobFile) },
	}
	c.Flags().StringVar(&jobFile, "job-file", "/longshore/job/job.json", "path of the job file; - reads it from standard input")
	return c
}

func (p *program) runJob(ctx context.Context, jobFile string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find my own path: %w", err)
	}
	// From here on this process holds the job's token, and steps run as the same
	// user: they must not be able to read its memory.
	if err := forbidReading(); err != nil {
		return err
	}
	debug.SetMemoryLimit(memoryLimit)

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	ignoreBrokenPipes()

	supervisor, err := workflow.Supervise()
	if err != nil {
		return err
	}
	defer supervisor.Close()
	code, err := executor.Run(ctx, executor.Options{
		JobFile:    jobFile,
		Stdout:     p.stdout,
		Environ:    p.environ,
		Executable: self,
		Version:    version,
		Signals:    signals,
		Supervisor: supervisor,
		Log:        newLogger(p.stderr),
	})
	if err != nil {
		return err
	}
	if code == 0 {
		return nil
	}
	return exitCode(code)
}

// ignoreBrokenPipes keeps the program alive when whoever reads its output is
// gone: a job outlives the agent that started it. The signal is caught and not
// ignored, because children inherit what is ignored.
func ignoreBrokenPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

func newLogger(w io.Writer) *zap.Logger {
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(config), zapcore.AddSync(w), zapcore.InfoLevel))
}
