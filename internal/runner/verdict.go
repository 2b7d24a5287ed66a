package runner

import (
	"errors"
	"fmt"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/ledger"
)

// verdict is what an agent makes of the end of a job, and what is left to say
// to the service.
type verdict struct {
	outcome string // for the metric and the agent's log
	failed  bool
	// step gets the line and, when the job failed, the status failed; or noStep
	// or unknownStep.
	step int
	// line is for the job's owner; empty when the executor has said everything.
	line string
	// settled says that the steps up to step ended as the line's step says, and
	// that the service may not know of it yet.
	settled bool
	// told says that the service knows the status already: only the line is new.
	told bool
}

const (
	noStep      = -1 // there is nothing to say
	unknownStep = -2 // the first step that has not succeeded, whichever that is
)

// end and verdictOf keep a verdict across processes.
func (v verdict) end() *ledger.End {
	return &ledger.End{Outcome: v.outcome, Failed: v.failed, Step: v.step, Line: v.line, Settled: v.settled, Told: v.told}
}

func verdictOf(e ledger.End) verdict {
	return verdict{outcome: e.Outcome, failed: e.Failed, step: e.Step, line: e.Line, settled: e.Settled, told: e.Told}
}

const stackAdvice = " If it was changing infrastructure, the stack may hold a lock or pending operations: see with \"pulumi stack\", release with \"pulumi cancel\", then \"pulumi refresh\"."

// judge decides from the end of the workload alone. Success is the executor's
// own word, its report: an exit code of 0 proves nothing. cause is why the agent
// stopped the job, nil when it did not.
func judge(e ending, cause error, limits backend.Limits) verdict {
	report := believable(e.exit.Report)
	if e.err == nil && report != nil && report.Outcome != "" {
		return reported(*report, e.exit, cause, limits)
	}
	v := verdict{failed: true, step: unknownStep}
	if report != nil {
		// The steps before it have succeeded, whether or not the executor got
		// that delivered; and so has this one, if it was on its way to the next.
		v.step, v.settled = report.Step, true
		if report.Status == api.StepSucceeded {
			v.step++
		}
	}
	switch {
	case errors.Is(e.err, backend.ErrGone):
		v.outcome = outcomeRemoved
		v.line = "What the job ran in was removed outside of the agent while the job was running. Look for who removes containers or directories on the agent's host." + stackAdvice
	case e.exit.OutOfMemory:
		v.outcome = outcomeOutOfMemory
		v.line = outOfMemory("The job", limits) + stackAdvice
	case errors.Is(cause, errOverdue):
		v.outcome = outcomeTimedOut
		v.line = "The job outlived its time limit and did not end when it was asked to, so it was killed." + stackAdvice
	case cause != nil:
		v.outcome = outcomeCancelled
		v.line = fmt.Sprintf("The job was stopped (%v) and did not end in time, so it was killed.", cause) + stackAdvice
	case e.err != nil:
		v.outcome = outcomeCrashed
		v.line = fmt.Sprintf("How the job ended cannot be found out: %v.", e.err) + stackAdvice
	case e.exit.Code == api.ExitNotBegun && report == nil:
		v.outcome, v.step = outcomeNeverStarted, 0
		v.line = fmt.Sprintf("The executor ended before the first step%s, as happens when its agent ends while it starts the job. Nothing was changed; deploy again.", inBrackets(e.exit.Reason))
	case e.exit.Code == 0:
		v.outcome = outcomeCrashed
		v.line = "The executor ended without a word (exit code 0 and no report). That counts as a failure: something else may have stopped it." + stackAdvice
	case e.exit.Code == api.ExitServiceLost:
		v.outcome = string(api.OutcomeServiceLost)
		v.line = "The executor lost the service and gave up."
	case e.exit.Code == backend.CodeUnknown:
		v.outcome = outcomeCrashed
		v.line = fmt.Sprintf("The executor ended without a report%s.", inBrackets(e.exit.Reason)) + stackAdvice
	default:
		v.outcome = outcomeCrashed
		v.line = fmt.Sprintf("The executor crashed with exit code %d%s.", e.exit.Code, inBrackets(e.exit.Reason)) + stackAdvice
	}
	return v
}

// believable returns a report that an executor may have written, and nil for any
// other: it lies where steps can write, too.
func believable(r *api.Report) *api.Report {
	if r == nil || r.Step < 0 || r.Outcome != "" && !r.Outcome.Valid() {
		return nil
	}
	return r
}

// reported judges a job whose executor had the time to say how it ended.
func reported(r api.Report, exit backend.Exit, cause error, limits backend.Limits) verdict {
	v := verdict{outcome: string(r.Outcome), failed: r.Outcome != api.OutcomeSucceeded, step: noStep}
	switch {
	case !r.Delivered:
		v.step, v.settled = r.Step, true
		v.line = "The service could not be reached at the end of the job: the last lines of its log may be missing."
		if r.Message != "" {
			v.line += " The executor's last words: " + r.Message
		}
	case exit.OutOfMemory && v.failed && r.Outcome != api.OutcomeOutOfMemory: // of which the executor has said more
		v.outcome = outcomeOutOfMemory
		v.step, v.told = r.Step, true
		v.line = outOfMemory("A process of this job", limits)
	case r.Outcome == api.OutcomeCancelled && r.Signalled && cause == nil:
		v.outcome = outcomeStopped
		v.step, v.told = r.Step, true
		v.line = "It was not the deployment that was cancelled: what the job ran in was told to stop, by a container engine or a machine that ended or restarted, or by somebody on the agent's host. Deploy again."
	}
	return v
}

func outOfMemory(who string, limits backend.Limits) string {
	if limits.MemoryBytes == 0 {
		return who + " was killed because the host ran out of memory. Give the host more, or run fewer jobs at a time (concurrency)."
	}
	return fmt.Sprintf("%s was killed because it used more than its %d MiB of memory. Give jobs more (job_memory), or have it use less.", who, limits.MemoryBytes>>20)
}

func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}
