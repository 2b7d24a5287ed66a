package control

import "strings"

// escaper escapes what a shell would act on between double quotes.
var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`")

// quote returns a word that any POSIX shell reads as exactly value. It uses
// double quotes, as the command lines of Pulumi's own deployments do.
func quote(value string) string { return `"` + escaper.Replace(value) + `"` }

// flag returns --name=value as one word.
func flag(name, value string) string { return "--" + name + "=" + quote(value) }
