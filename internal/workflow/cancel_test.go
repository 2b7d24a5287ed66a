package workflow_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
)

func TestCancel(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "bash")
	for name, c := range map[string]struct {
		script  string
		shell   string
		grace   time.Duration
		outcome api.Outcome
		states  []string
		log     []string // in this order
		notLog  string
	}{
		"a step that ends at the interrupt": {
			script:  "echo ready; sleep 60; echo never",
			grace:   10 * time.Second,
			outcome: api.OutcomeCancelled,
			states:  []string{"1 running", "1 failed"},
			log:     []string{"ready\n", "longshore: the deployment was cancelled: sent an interrupt (SIGINT), the step has 10s to finish\n", "was ended by a signal (interrupt)"},
			notLog:  "never",
		},
		"a step that finishes its work has succeeded, the next one fails unstarted": {
			script:  "trap 'echo got it; trap \"\" INT; sleep 0.3; echo finished; exit 0' INT; echo ready; while :; do sleep 0.05; done",
			grace:   10 * time.Second,
			outcome: api.OutcomeCancelled,
			states:  []string{"1 running", "1 succeeded", "2 failed"},
			log:     []string{"got it\n", "finished\n"},
		},
		"a step that ignores it gets SIGTERM after the grace": {
			script:  "trap '' INT; trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done",
			grace:   300 * time.Millisecond,
			outcome: api.OutcomeCancelled,
			states:  []string{"1 running", "1 failed"},
			log:     []string{"has 300ms to finish", "sent SIGTERM", "term\n", "exited with code 7"},
			notLog:  "SIGKILL",
		},
		"a step that ignores everything is killed": {
			script:  "trap '' INT TERM; echo ready; while :; do sleep 0.05; done",
			grace:   200 * time.Millisecond,
			outcome: api.OutcomeCancelled,
			states:  []string{"1 running", "1 failed"},
			log:     []string{"sent SIGTERM", "SIGKILL", "was ended by a signal (killed)"},
			notLog:  "pulumi cancel",
		},
		"a killed pulumi leaves advice": {
			script:  "pulumi () { trap '' INT TERM; echo ready; while :; do sleep 0.05; done; }\npulumi up",
			grace:   200 * time.Millisecond,
			outcome: api.OutcomeCancelled,
			states:  []string{"1 running", "1 failed"},
			log:     []string{"SIGKILL", "may still be locked", "pulumi cancel --stack acme/shop/prod --yes"},
		},
		"what the shell started is waited for when the shell dies first": {
			script:  "sh -c 'trap \"sleep 0.5; echo checkpoint; exit 0\" INT; echo ready; while :; do sleep 0.05; done'; echo done",
			shell:   "sh", // dash dies of an interrupt while its child still works
			grace:   10 * time.Second,
			outcome: api.OutcomeCancelled,
			states:  []string{"1 running", "1 failed"},
			log:     []string{"checkpoint\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := job(c.script, "echo second")
			in.ChangeGrace = c.grace
			in.Definition.Shell = c.shell
			in.Definition.Env = map[string]string{"PULUMI_CI_ORGANIZATION": "acme", "PULUMI_CI_PROJECT": "shop", "PULUMI_CI_STACK": "prod"}
			r, res := run(t, in, cancelAt(t, "\nready\n"))
			if res.Outcome != c.outcome || !strings.Contains(res.Message, "the deployment was cancelled") {
				t.Errorf("result = %+v", res)
			}
			if diff := cmp.Diff(c.states, r.states); diff != "" {
				t.Errorf("states (-want +got):\n%s\nlog: %s", diff, r.log(1))
			}
			rest := r.log(1)
			for _, want := range c.log {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Errorf("log lacks %q in its place:\n%s", want, r.log(1))
					continue
				}
				rest = after
			}
			if c.notLog != "" && strings.Contains(strings.Replace(r.log(1), c.script, "", 1), c.notLog) {
				t.Errorf("log must not say %q:\n%s", c.notLog, r.log(1))
			}
		})
	}
}

func TestCancelCountsDown(t *testing.T) {
	t.Parallel()
	in := job("trap '' INT; echo ready; sleep 0.3 & while [ ! -e /nowhere ]; do sleep 0.05; done")
	in.ChangeGrace = 10*time.Second + 200*time.Millisecond
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	r, _ := run(t, in, cancelAt(t, "\nready\n"))
	if !strings.Contains(r.log(1), "longshore: 10s left to finish\n") {
		t.Errorf("log = %s", r.log(1))
	}
}

func TestAGrandchildThatEscapedDoesNotHangACancelledStep(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "setsid")
	start := time.Now()
	_, res := run(t, job("setsid sleep 8 & echo ready; sleep 60"), cancelAt(t, "\nready\n"))
	if res.Outcome != api.OutcomeCancelled {
		t.Errorf("result = %+v", res)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	t.Run("of a step", func(t *testing.T) {
		t.Parallel()
		in := job("sleep 60", "true")
		in.Definition.Steps[1].Timeout = api.Duration(200 * time.Millisecond)
		r, res := run(t, in, nil)
		if res.Outcome != api.OutcomeTimedOut || !strings.Contains(r.log(1), "the step took longer than its timeout of 200ms") {
			t.Errorf("result = %+v, log %s", res, r.log(1))
		}
	})
	t.Run("of the job, in its second step", func(t *testing.T) {
		t.Parallel()
		in := job("true", "sleep 60")
		in.Timeout = 700 * time.Millisecond
		r, res := run(t, in, nil)
		if res.Outcome != api.OutcomeTimedOut || res.Step != 2 || !strings.Contains(r.log(2), "the job took longer than its timeout of 700ms") {
			t.Errorf("result = %+v, log %s", res, r.log(2))
		}
	})
	t.Run("a job that was cancelled before it began", func(t *testing.T) {
		t.Parallel()
		in := job("echo never")
		in.Timeout = time.Nanosecond
		r, res := run(t, in, nil)
		if diff := cmp.Diff([]string{"1 failed"}, r.states); diff != "" || res.Outcome != api.OutcomeTimedOut {
			t.Errorf("result = %+v, states:\n%s", res, diff)
		}
		if !strings.Contains(r.log(1), "so this step was not started") {
			t.Errorf("log = %q", r.log(1))
		}
	})
}

func TestAStepThatPrintsNothingForTooLong(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "bash")
	in := job("trap 'echo got it; exit 3' INT; echo ready; while :; do sleep 0.05; done", "echo never")
	in.IdleTimeout = 2 * time.Second
	r, res := run(t, in, nil)
	if res.Outcome != api.OutcomeTimedOut || res.Step != 1 || !strings.Contains(res.Message, "no output for 2s in step 1") {
		t.Errorf("result = %+v", res)
	}
	if diff := cmp.Diff([]string{"1 running", "1 failed"}, r.states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	want := "ready\nlongshore: no output for 2s: sent an interrupt (SIGINT), the step has 10s to finish\ngot it\nlongshore: the command exited with code 3\n"
	if !strings.HasSuffix(r.log(1), want) {
		t.Errorf("log = %q", r.log(1))
	}
}
