package config

import (
	"fmt"
	"strings"
)

// Markdown returns the reference of all options, the text of
// docs/configuration.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# Configuration of the agent

This page is made from the options themselves (` + "`internal/config`" + `); a test keeps it true.

Every option can be set by a flag, by the environment, or in a file. A flag wins over the environment, the environment
over the file, the file over the default. Of two environment variables, ` + "`LONGSHORE_AGENT_...`" + ` wins over ` + "`PULUMI_AGENT_...`" + `;
an empty one counts as not set. Lists are separated by commas or spaces.

The file is the one that ` + "`--config`" + ` or ` + "`LONGSHORE_AGENT_CONFIG`" + ` names, else the first of ` + "`longshore-agent.yaml`" + `,
` + "`pulumi-workflow-agent.yaml`" + ` and ` + "`pulumi-deployment-agent.yaml`" + ` that is found in the current directory, the home directory,
` + "`/etc`" + `, or the directory of the program. A file of the agent that Longshore replaces is read unchanged.

All mistakes are reported at once, each with where it was made, and the agent exits with status 2. A key that is not
known, and one that is known and not acted on, gets a warning in the log at start.

| key in the file | flag | environment | type | default | meaning |
|---|---|---|---|---|---|
`)
	for _, o := range Options() {
		if o.Unused != "" {
			continue
		}
		standard := "–"
		switch {
		case o.Default != "":
			standard = "`" + o.Default + "`"
		case o.DefaultHelp != "":
			standard = o.DefaultHelp
		}
		fmt.Fprintf(&b, "| `%s` | `--%s` | %s | %s | %s | %s |\n",
			o.Key, o.Flag(), code(o.EnvNames()), o.Kind(), standard, o.Help)
	}
	b.WriteString(`
## Accepted and not acted on

These keys belong to the agent that Longshore replaces. They are read, so that its file loads unchanged; setting one says
at start that it has no effect.

| key in the file | meaning there | why it has no effect here |
|---|---|---|
`)
	for _, o := range Options() {
		if o.Unused != "" {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.Key, o.Help, o.Unused)
		}
	}
	return b.String()
}

func code(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }
