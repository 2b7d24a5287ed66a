package runner

import (
	"encoding/json"
	"testing"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
)

// FuzzReport: a report lies where steps can write. Whatever it says, a job that
// is over ends in one of the outcomes there are, and a failure that the
// executor has not reported is reported; and its numbers can be counted.
func FuzzReport(f *testing.F) {
	f.Add(`{"step":2,"status":"running","delivered":false}`, 137, false)
	f.Add(`{"step":2,"status":"succeeded","delivered":true,"outcome":"succeeded"}`, 0, false)
	f.Add(`{"step":-1,"status":"failed","outcome":"step-failed"}`, 10, true)
	f.Add(`{"step":1e9,"outcome":"whatever"}`, -1, false)
	f.Add(`{"outcome":"succeeded","cache":[{"action":"save","manager":"npm","result":"saved","bytes":-1,"took":"1s"},null,{}]}`, 0, false)
	known := map[string]bool{outcomeCrashed: true, outcomeOutOfMemory: true, outcomeStopped: true, outcomeNeverStarted: true}
	for _, o := range []api.Outcome{
		api.OutcomeSucceeded, api.OutcomeStepFailed, api.OutcomeBadDefinition, api.OutcomeCancelled, api.OutcomeTimedOut, api.OutcomeServiceLost,
	} {
		known[string(o)] = true
	}
	f.Fuzz(func(t *testing.T, text string, code int, memory bool) {
		exit := backend.Exit{Code: code, OutOfMemory: memory}
		var report api.Report
		if json.Unmarshal([]byte(text), &report) == nil {
			exit.Report = &report
		}
		newCacheMetrics().count(report.Cache) // which panics when something goes down
		v := judge(ending{exit: exit}, nil, backend.Limits{})
		if !known[v.outcome] {
			t.Errorf("outcome %q of %q", v.outcome, text)
		}
		said := exit.Report != nil && report.Delivered && report.Outcome != ""
		if v.failed && !said && (v.step == noStep || v.line == "") {
			t.Errorf("nothing is said about %q: %+v", text, v)
		}
		if v.step < unknownStep {
			t.Errorf("step %d of %q", v.step, text)
		}
	})
}
