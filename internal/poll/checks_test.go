package poll_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/longshore-run/longshore/internal/poll"
)

// condition is a check that can be broken and mended, and that takes its time to
// find out.
type condition struct {
	takes time.Duration

	mu     sync.Mutex
	broken bool
	times  int
}

func (c *condition) set(broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = broken
}

func (c *condition) Check(context.Context) error {
	time.Sleep(c.takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times++
	if c.broken {
		return fmt.Errorf("broken for the %d. time", c.times) // another text each time
	}
	return nil
}

func gauge(t *testing.T, reg prometheus.Gatherer, values map[string]int) {
	t.Helper()
	want := "# HELP longshore_agent_poll_blocked 1 for each reason for which the agent does not poll at the moment.\n# TYPE longshore_agent_poll_blocked gauge\n"
	for _, reason := range []string{"disk", "draining", "slots", "target"} {
		want += fmt.Sprintf("longshore_agent_poll_blocked{reason=%q} %d\n", reason, values[reason])
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "longshore_agent_poll_blocked"); err != nil {
		t.Error(err)
	}
}

func TestReasonsForNotPollingShow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, j := newService(), &jobs{takes: time.Minute}
		target, disk := &condition{takes: 5 * time.Second}, &condition{}
		var mu sync.Mutex
		reasons := map[string]error{}
		reason := func(name string) string {
			mu.Lock()
			defer mu.Unlock()
			return fmt.Sprint(reasons[name])
		}
		reg := prometheus.NewRegistry()
		core, logs := observer.New(zapcore.InfoLevel)
		drain, _, wait := start(t, poll.Options{
			Source: s, Handler: j, Slots: 1, Log: zap.New(core), Metrics: poll.NewMetrics(reg),
			Checks: []poll.Check{{Reason: "target", Check: target.Check}, {Reason: "disk", Check: disk.Check}},
			Blocked: func(reason string, why error) {
				mu.Lock()
				defer mu.Unlock()
				reasons[reason] = why
			},
		})
		time.Sleep(30 * time.Second) // into the first poll
		gauge(t, reg, nil)

		target.set(true)
		disk.set(true)
		time.Sleep(time.Hour)
		if n := len(s.made()); n != 1 {
			t.Errorf("%d polls, want none after the first", n-1)
		}
		gauge(t, reg, map[string]int{"target": 1, "disk": 1})
		if got := reason("target"); !strings.HasPrefix(got, "broken for the ") || got == "broken for the 2. time" {
			t.Errorf("the target is %s, want the newest word", got)
		}

		disk.set(false)
		time.Sleep(time.Minute)
		gauge(t, reg, map[string]int{"target": 1})
		target.set(false)
		time.Sleep(time.Minute)
		gauge(t, reg, nil)
		if reason("target") != "<nil>" || len(s.made()) == 1 {
			t.Errorf("%d polls since all is well; target: %s", len(s.made())-1, reason("target"))
		}

		s.put("a")
		synctest.Wait()
		gauge(t, reg, map[string]int{"slots": 1})
		if got := reason(poll.ReasonSlots); got != "all are in use" {
			t.Errorf("not polling because %s, want that all slots are in use", got)
		}
		drain()
		synctest.Wait()
		gauge(t, reg, map[string]int{"draining": 1})
		_ = wait()

		var said []string
		for _, entry := range logs.All() {
			said = append(said, fmt.Sprintf("%s: %s", entry.Message, entry.ContextMap()["reason"]))
		}
		want := []string{"not polling: target", "not polling: disk", "a reason for not polling is gone: disk", "a reason for not polling is gone: target"}
		if strings.Join(said, "\n") != strings.Join(want, "\n") {
			t.Errorf("the log says\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestADrainDuringACheckSaysNothingOfTheTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, told := newService(), false
		drain, _, wait := start(t, poll.Options{
			Source: s, Handler: &jobs{}, Slots: 1,
			Checks: []poll.Check{{Reason: "target", Check: func(ctx context.Context) error {
				<-ctx.Done()
				return errors.New("cut short")
			}}},
			Blocked: func(reason string, _ error) { told = told || reason == "target" },
		})
		synctest.Wait()
		began := time.Now()
		drain()
		_ = wait()
		if told || len(s.made()) != 0 || time.Since(began) != 0 {
			t.Errorf("target blamed: %t, %d polls, %v until the end, want none of it", told, len(s.made()), time.Since(began))
		}
	})
}
