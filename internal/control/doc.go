// Package control holds the rules of the control plane: which deployments may
// be created, which agent gets which of them and when, what a runner may
// report, what a user reads back, and how everything ends. It knows no HTTP and
// no SQL: the server in front of it turns errors of type *api.Error into
// answers, and the stores that it declares are implemented by internal/store.
//
// # The life of a deployment
//
// A deployment is created not-started and waits in the queue of its pool. One
// deployment of a stack is active at a time; the others follow in the order of
// their versions. A claim gives it a job, a job token and the steps of its
// compiled definition, all in one transaction. The first call of its runner
// confirms the claim, and from then on the deployment is never handed out again;
// a claim that is not confirmed within the claim timeout is dissolved by Run, and
// the deployment waits again in its old place. The steps that the runner reports
// decide the rest. A job that is silent for longer than the heartbeat timeout is
// failed by Run.
//
// # The default pool
//
// The first pool of an organisation is its default, until it is deleted; then
// the oldest of the others takes its place. A deployment that names no pool
// goes to the pool that is the default when it is claimed, and to no other.
//
// # The end of a log
//
// A job token may append to the log of its job for LateTail after the job's
// end, because the last lines may still be under way. A reader in streaming
// mode does not wait for them: it leaves a step when the step has ended, all
// its lines so far are read, and the next step has begun or the job has ended.
// Lines that come later than that are seen by those who read the step itself,
// or the log from its start.
package control
