// Package admin is the way by which an operator on the same host talks to a
// running agent: a unix socket in the agent's working directory, for the owner
// of the agent alone, that tells what the agent is doing and takes the two
// orders that signals give, too. Whoever may open the socket may give them;
// there is no other check. The main types are Server and Client.
package admin

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// ErrNoAgent is wrapped by the errors of a Client when no agent answers.
var ErrNoAgent = errors.New("no agent runs there")

// ErrTaken is wrapped by the error of Listen when another agent answers.
var ErrTaken = errors.New("another agent runs in this working directory")

// ErrTooLong is wrapped by the error of Listen when the working directory's path
// leaves no room for the name of a socket.
var ErrTooLong = errors.New("the path is too long for a socket")

// SocketPath returns where the agent that works in directory listens.
func SocketPath(directory string) string { return filepath.Join(directory, "admin.sock") }

// Agent is what a Server speaks for. Its methods may be called concurrently.
type Agent interface {
	Status() Status
	// Drain makes the agent claim no more and end when its jobs have. A second
	// call changes nothing.
	Drain()
	// Cancel makes the agent end its jobs, too.
	Cancel()
}

// Status is what an agent says of itself.
type Status struct {
	State   string   `json:"state"` // running, draining or cancelling
	PID     int      `json:"pid"`
	Version string   `json:"version"`
	Slots   int      `json:"slots"`
	Busy    int      `json:"busy"`
	Reasons []string `json:"reasons"` // why it does not poll, or what else is wrong
	Jobs    []Job    `json:"jobs"`    // in hand, the oldest first
	// Until is when a drain cancels what is still in hand. Nil: never.
	Until *time.Time `json:"until,omitempty"`
}

// Job is one job in hand.
type Job struct {
	JobID        string    `json:"jobID"`
	DeploymentID string    `json:"deploymentID"`
	Since        time.Time `json:"since"`
}

// String says in a few words what the agent is doing.
func (s Status) String() string {
	text := fmt.Sprintf("%s, %d of %d slots in use", s.State, s.Busy, s.Slots)
	if s.Until != nil {
		text += ", what is in hand is cancelled at " + s.Until.Local().Format(time.TimeOnly)
	}
	return text
}
