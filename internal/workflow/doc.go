// Package workflow turns a job definition into a plan and walks it.
//
// NewPlan is pure: from the definition, the environment and the limits it makes
// a Plan, one Step for each script, in which nothing is left to decide. Run
// walks the plan: one fresh shell for each step, in one place shared by all,
// and tells a Reporter what happened. A step that fails is a Result, not an
// error: the steps after it stay not-started.
//
// The package knows nothing of the service, of HTTP or of the job file; package
// executor wires those to it.
package workflow
