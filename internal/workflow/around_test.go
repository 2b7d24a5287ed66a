package workflow_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/workflow"
)

// commands around a step, as a script that is told its own place.
func around(t *testing.T, script string) workflow.Around {
	t.Helper()
	path := filepath.Join(t.TempDir(), "beside")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return workflow.Around{Before: []string{path, "before"}, After: []string{path, "after"}}
}

func TestCommandsAroundAStep(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		beside, script string
		outcome        api.Outcome
		want, not      string // of the log of step 1
	}{
		"run in its directory and with its variables": {
			`echo "$1 in ${PWD##*/} with $NAME"`, "echo script", api.OutcomeSucceeded,
			"before in work with value\nscript\nafter in work with value\n", "going on without",
		},
		"fail nothing": {
			`exit 3`, "echo script", api.OutcomeSucceeded,
			"before exited with code 3; going on without\nscript\n", "",
		},
		"are not run after a script that failed": {
			`echo "$1"`, "exit 1", api.OutcomeStepFailed,
			"before\n", "after\n",
		},
		"do not make a failure good": {
			`[ "$1" = before ]`, "exit 1", api.OutcomeStepFailed,
			"exited with code 1", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := job(tc.script, "true")
			in.Directory = filepath.Join(t.TempDir(), "work")
			in.Env = map[string]string{"NAME": "value"}
			in.Around = map[int]workflow.Around{1: around(t, tc.beside)}
			r, res := run(t, in, nil)
			if res.Outcome != tc.outcome {
				t.Errorf("result = %+v, want %s", res, tc.outcome)
			}
			log := strings.ReplaceAll(r.log(1), "longshore: "+in.Around[1].Before[0]+" ", "")
			if !strings.Contains(log, tc.want) || tc.not != "" && strings.Contains(log, tc.not) {
				t.Errorf("log %q, want %q and not %q", r.log(1), tc.want, tc.not)
			}
		})
	}
}

func TestCommandsThatAreNotThere(t *testing.T) {
	t.Parallel()
	in := job("echo script")
	in.Around = map[int]workflow.Around{1: {Before: []string{"/nowhere/beside"}, After: []string{"/nowhere/beside"}}}
	r, res := run(t, in, nil)
	if log := r.log(1); res.Outcome != api.OutcomeSucceeded || strings.Count(log, "going on without") != 2 {
		t.Errorf("result = %+v, log %q", res, log)
	}
}

func TestACancelEndsCommandsAroundAStep(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			in := job("echo script", "echo never")
			in.Around = map[int]workflow.Around{1: around(t, `if [ "$1" = `+when+` ]; then echo waiting; exec sleep 60; fi`)}
			r, res := run(t, in, func(r *recorder, cancel context.CancelCauseFunc) {
				r.waitFor(t, 1, "waiting")
				cancel(errors.New("told to stop"))
			})
			if res.Outcome != api.OutcomeCancelled || strings.Contains(r.log(2), "never\n") {
				t.Errorf("result = %+v, log %q", res, r.log(2))
			}
			if ran := strings.Contains(r.log(1), "\nscript\n"); ran != (when == "after") {
				t.Errorf("log of step 1 %q", r.log(1))
			}
		})
	}
}
