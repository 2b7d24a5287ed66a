// Package client speaks to the service on behalf of an agent (pool token) and
// of an executor (job token): paths and bodies of PROTOCOL 2 to 4, retries,
// Retry-After, time limits and the circuit breaker. It decides nothing about
// jobs: it says what happened, in errors that tell a passing fault from a
// refusal (Retryable, Refused, Gone) and name what to check.
//
// The main type is Client; Pool and Job are views of it that carry a token. All
// three may be used by any number of goroutines.
package client
