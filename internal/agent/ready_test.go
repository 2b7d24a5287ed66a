package agent_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/backend/fake"
	"github.com/longshore-run/longshore/internal/telemetry"
)

// TestAnAgentThatIsNotReadyDoesNotPoll: an engine that hangs, a full disk and a
// wrong clock each keep an agent from polling, and all of them show.
func TestAnAgentThatIsNotReadyDoesNotPoll(t *testing.T) {
	t.Parallel()
	s := newService(t, "a")
	inner := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		inner.ServeHTTP(w, r)
	})
	c := config(t, s, "lsp-1")
	c.MinFree, c.MaxSkew = math.MaxInt64, 5*time.Minute
	var checks atomic.Int32
	c.Backend = fake.New(fake.Script{Check: func(context.Context) error {
		if checks.Add(1) == 1 {
			return nil // while the agent looks for jobs of before
		}
		return errors.New("the engine accepts calls and does not answer them")
	}})
	reg, health := prometheus.NewRegistry(), telemetry.NewHealth(0)
	core, logs := observer.New(zapcore.WarnLevel)
	warned := make(chan string, 100)
	log := zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if e.Message == "not polling" {
			warned <- e.Message
		}
		return nil
	}))
	a, err := agent.New(c, agent.Deps{Registerer: reg, Health: health, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, nil) }()
	for range 3 {
		<-warned
	}
	reasons := health.Reasons()
	for i, want := range []string{"clock: the clock of this host is 1h0m", "disk: ", "target: the engine accepts calls"} {
		if len(reasons) != 3 || !strings.HasPrefix(reasons[i], want) {
			t.Fatalf("not ready because of %q, want %q", reasons, want)
		}
	}
	want := `
# HELP longshore_agent_poll_blocked 1 for each reason for which the agent does not poll at the moment.
# TYPE longshore_agent_poll_blocked gauge
longshore_agent_poll_blocked{reason="clock"} 1
longshore_agent_poll_blocked{reason="disk"} 1
longshore_agent_poll_blocked{reason="draining"} 0
longshore_agent_poll_blocked{reason="slots"} 0
longshore_agent_poll_blocked{reason="target"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "longshore_agent_poll_blocked"); err != nil {
		t.Error(err)
	}
	cancel(errors.New("the test is over"))
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	if n := len(s.polled); n != 0 {
		t.Errorf("%d polls", n)
	}
	if n := logs.FilterMessage("not polling").Len(); n != 3 {
		t.Errorf("%d warnings, want one for each reason", n)
	}
}

func TestAnAgentEndsAfterItsJobs(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*agent.Config){
		"after so many":              func(c *agent.Config) { c.MaxJobs = 2 },
		"when it was idle for a bit": func(c *agent.Config) { c.IdleTimeout = 100 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "a", "b")
			c := config(t, s, "lsp-1")
			set(&c)
			a, err := agent.New(c, agent.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Run(t.Context(), nil); err != nil {
				t.Errorf("Run() = %v", err)
			}
			if n := len(s.ended); n != 2 {
				t.Errorf("%d jobs ended, want both", n)
			}
		})
	}
}
