package lifecycle_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/lifecycle"
)

// TestMain lets the test binary be the child that receives the signals.
func TestMain(m *testing.M) {
	if os.Getenv("LIFECYCLE_CHILD") != "" {
		child()
	}
	goleak.VerifyTestMain(m)
}

func child() {
	ctx, drain, done := lifecycle.Stops(context.Background(), os.Interrupt, syscall.SIGTERM)
	fmt.Println("ready")
	<-drain
	if ctx.Err() != nil {
		fmt.Println("the first signal cancelled")
	}
	fmt.Println("draining")
	if os.Getenv("LIFECYCLE_CHILD") == "drain" {
		done()
		os.Exit(0)
	}
	<-ctx.Done()
	fmt.Println("cancelled", errors.Is(context.Cause(ctx), lifecycle.ErrCancelled))
	if os.Getenv("LIFECYCLE_CHILD") == "cancel" {
		done()
		os.Exit(7)
	}
	select {} // deaf to everything but the third signal
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		mode  string
		lines []string // after each line but the last, one signal is sent
		exit  int
	}{
		"the first drains":         {"drain", []string{"ready", "draining"}, 0},
		"the second cancels":       {"cancel", []string{"ready", "draining", "cancelled true"}, 7},
		"the third leaves at once": {"deaf", []string{"ready", "draining", "cancelled true"}, 130},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0])
			cmd.Env = append(os.Environ(), "LIFECYCLE_CHILD="+tc.mode)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for i, want := range tc.lines {
				if !lines.Scan() || lines.Text() != want {
					t.Fatalf("the child said %q, want %q", lines.Text(), want)
				}
				if i < len(tc.lines)-1 || tc.mode == "deaf" {
					if err := cmd.Process.Signal([]os.Signal{os.Interrupt, syscall.SIGTERM}[i%2]); err != nil {
						t.Fatal(err)
					}
				}
			}
			err = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tc.exit {
				t.Errorf("the child exited with %d (%v), want %d", got, err, tc.exit)
			}
		})
	}
}

func TestParentContextCancels(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithCancelCause(t.Context())
	ctx, drain, done := lifecycle.Stops(parent, syscall.SIGUSR1)
	defer done()
	cause := errors.New("the test is over")
	cancel(cause)
	<-ctx.Done()
	if got := context.Cause(ctx); !errors.Is(got, cause) {
		t.Errorf("Cause() = %v, want %v", got, cause)
	}
	select {
	case <-drain:
		t.Error("drain was closed without a signal")
	default:
	}
	done() // twice is harmless
}
