package api

import (
	"regexp"
	"strings"
)

// stackFlag finds the stack in a command of Pulumi's executor or of ours.
var stackFlag = regexp.MustCompile(`--stackIdentity(?:=|\s+)"?([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)"?(?:\s|$)`)

// StackIdentity returns the stack that a definition is about, as
// organization/project/stack, or "" when that cannot be told for sure. It reads
// the commands that the service wrote: what users write, variables and pre-run
// commands, may name any stack.
func (d JobDefinition) StackIdentity() string {
	found := ""
	for _, s := range d.Steps {
		if strings.HasPrefix(s.Name, "Pre-run command") {
			continue
		}
		for _, match := range stackFlag.FindAllStringSubmatch(s.Run, -1) {
			if found != "" && match[1] != found {
				return ""
			}
			found = match[1]
		}
	}
	return found
}
