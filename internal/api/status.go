package api

import "slices"

// Status is the state of a deployment, and of the job that runs it, as the
// public API spells it.
type Status string

// The six statuses of the API.
const (
	StatusNotStarted Status = "not-started" // queued
	StatusAccepted   Status = "accepted"    // claimed by an agent, nothing has run yet
	StatusRunning    Status = "running"     // a step has started
	StatusFailed     Status = "failed"      // a step failed, it was cancelled, or its runner was lost
	StatusSucceeded  Status = "succeeded"   // every step succeeded
	StatusSkipped    Status = "skipped"     // ended before an agent took it up
)

// nextStatus lists the moves a deployment may make. What is not here cannot
// happen. The one move back to not-started is that of a claim of which nobody
// was heard: its runner never had the recipe, so nothing can have run. From
// running no move leads back: deployments are at-most-once.
var nextStatus = map[Status][]Status{
	StatusNotStarted: {StatusAccepted, StatusSkipped, StatusFailed},
	StatusAccepted:   {StatusRunning, StatusFailed, StatusNotStarted, StatusSkipped},
	StatusRunning:    {StatusSucceeded, StatusFailed},
}

// Statuses returns every status, in the order of a deployment's life.
func Statuses() []Status {
	return []Status{
		StatusNotStarted, StatusAccepted, StatusRunning,
		StatusFailed, StatusSucceeded, StatusSkipped,
	}
}

// CanBecome reports whether a deployment in status s may move to t.
// Staying the same is not a move.
func (s Status) CanBecome(t Status) bool { return slices.Contains(nextStatus[s], t) }

// Terminal reports whether s is an end: no move leads out of it.
func (s Status) Terminal() bool {
	return s == StatusFailed || s == StatusSucceeded || s == StatusSkipped
}

// Valid reports whether s is one of the six statuses.
func (s Status) Valid() bool { return slices.Contains(Statuses(), s) }

// StepStatus is the state of one step of a job.
type StepStatus string

// The four statuses of a step. The wire form of a report carries the last three.
const (
	StepNotStarted StepStatus = "not-started"
	StepRunning    StepStatus = "running"
	StepSucceeded  StepStatus = "succeeded"
	StepFailed     StepStatus = "failed"
)

// nextStep lists the moves a step may make. A step may fail without having run:
// that is how a job that is cancelled between two steps ends.
var nextStep = map[StepStatus][]StepStatus{
	StepNotStarted: {StepRunning, StepFailed},
	StepRunning:    {StepSucceeded, StepFailed},
}

// CanBecome reports whether a step in status s may move to t.
func (s StepStatus) CanBecome(t StepStatus) bool { return slices.Contains(nextStep[s], t) }

// Terminal reports whether s is an end.
func (s StepStatus) Terminal() bool { return s == StepSucceeded || s == StepFailed }

// Valid reports whether s is one of the four step statuses.
func (s StepStatus) Valid() bool {
	switch s {
	case StepNotStarted, StepRunning, StepSucceeded, StepFailed:
		return true
	}
	return false
}

// Operation is what a deployment asks Pulumi to do.
type Operation string

// The six operations of the API.
const (
	OperationUpdate         Operation = "update"
	OperationPreview        Operation = "preview"
	OperationDestroy        Operation = "destroy"
	OperationRefresh        Operation = "refresh"
	OperationDetectDrift    Operation = "detect-drift"
	OperationRemediateDrift Operation = "remediate-drift"
)

// Operations returns every operation, in the order the API documents them.
func Operations() []Operation {
	return []Operation{
		OperationUpdate, OperationPreview, OperationDestroy,
		OperationRefresh, OperationDetectDrift, OperationRemediateDrift,
	}
}

// Valid reports whether o is one of the six operations.
func (o Operation) Valid() bool { return slices.Contains(Operations(), o) }

// Changes reports whether o changes infrastructure or state. An operation that
// does gets the long grace when it is cancelled.
func (o Operation) Changes() bool {
	return o != OperationPreview && o != OperationDetectDrift
}
