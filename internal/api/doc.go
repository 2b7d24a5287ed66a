// Package api holds the nouns that cross a process boundary and the rules that
// belong to them: deployments and their statuses, job definitions and their
// steps, log batches, secrets, and the job file that an agent hands to an
// executor. It holds no behaviour beyond those rules, does no I/O, and imports
// nothing but the standard library, so that agent, executor and server can all
// depend on it and never on each other.
//
// Names and types of JSON fields are facts of Pulumi Cloud's public API and of
// its runner protocol. Types whose wire form is one plain object are generated
// from api/openapi.yaml (api.gen.go); those that must be read liberally, or
// that carry rules, are written by hand.
package api
