package redact

import "slices"

// Needles returns what the given secrets are looked for as.
func Needles(secrets ...string) (all []string) {
	for _, s := range secrets {
		all = slices.AppendSeq(all, needles(s))
	}
	return all
}
