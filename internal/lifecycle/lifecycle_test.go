package lifecycle_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
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
	ctx, stops := lifecycle.Listen(context.Background(), func() { fmt.Println("leaving") }, os.Interrupt, syscall.SIGTERM)
	first := make(chan os.Signal, 1)
	signal.Notify(first, os.Interrupt)
	if os.Getenv("LIFECYCLE_CHILD") == "drained" {
		stops.Drain()
	}
	fmt.Println("ready")
	<-stops.Draining()
	<-first // so that the second signal is not sent before
	if ctx.Err() != nil {
		fmt.Println("the first signal cancelled")
	}
	fmt.Println("draining")
	if os.Getenv("LIFECYCLE_CHILD") == "drain" {
		stops.Done()
		os.Exit(0)
	}
	<-ctx.Done()
	fmt.Println(errors.Is(context.Cause(ctx), lifecycle.ErrCancelled), context.Cause(ctx))
	if os.Getenv("LIFECYCLE_CHILD") != "deaf" {
		stops.Done()
		os.Exit(7)
	}
	select {} // deaf to everything but a third signal
}

func TestSignals(t *testing.T) {
	t.Parallel()
	const cancelled = "true stopped by a second signal (terminated)"
	for name, tc := range map[string]struct {
		mode  string
		lines []string // after each line but the last, one signal is sent
		exit  int
	}{
		"the first drains":                      {"drain", []string{"ready", "draining"}, 0},
		"the second cancels":                    {"cancel", []string{"ready", "draining", cancelled}, 7},
		"the first never cancels":               {"drained", []string{"ready", "draining", cancelled}, 7},
		"the third has a word, and then leaves": {"deaf", []string{"ready", "draining", cancelled, "leaving"}, 130},
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
				if i < len(tc.lines)-1 {
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
	ctx, stops := lifecycle.Listen(parent, nil, syscall.SIGUSR1)
	defer stops.Done()
	cause := errors.New("the test is over")
	cancel(cause)
	<-ctx.Done()
	if got := context.Cause(ctx); !errors.Is(got, cause) {
		t.Errorf("Cause() = %v, want %v", got, cause)
	}
	select {
	case <-stops.Draining():
		t.Error("drains without a signal")
	default:
	}
	stops.Done() // twice is harmless
}

func TestSomethingElseAsksForTheStops(t *testing.T) {
	t.Parallel()
	ctx, stops := lifecycle.Listen(t.Context(), nil, syscall.SIGUSR2)
	defer stops.Done()
	stops.Drain()
	stops.Drain() // twice is harmless
	<-stops.Draining()
	if ctx.Err() != nil {
		t.Error("a drain cancelled")
	}
	cause := errors.New("the machine goes away")
	stops.Cancel(cause)
	stops.Cancel(errors.New("too late"))
	if got := context.Cause(ctx); !errors.Is(got, cause) {
		t.Errorf("Cause() = %v, want %v", got, cause)
	}
}

func TestCancelDrains(t *testing.T) {
	t.Parallel()
	_, stops := lifecycle.Listen(t.Context(), nil, syscall.SIGUSR2)
	defer stops.Done()
	stops.Cancel(errors.New("now"))
	<-stops.Draining()
}
