package workflow

import (
	"fmt"
	"strings"
)

// Limits of the file that PULUMI_ENV names. A single value is bounded by what
// Linux takes as one string of an environment (MAX_ARG_STRLEN, 128 KiB).
const (
	MaxEnvFileBytes  = 1 << 20
	MaxEnvValueBytes = 128<<10 - 256
)

// Variable is one variable that a step set for the steps after it.
type Variable struct{ Name, Value string }

// ParseEnvFile reads what a step wrote to the file that PULUMI_ENV names.
//
// Two forms are understood. KEY=VALUE sets KEY to all that follows the first
// equals sign: quotes are kept, nothing is expanded, only a carriage return at
// the end is dropped. KEY<<WORD sets KEY to the lines that follow, joined by
// newlines, up to a line that is exactly WORD. Empty lines and lines that start
// with # are skipped. A later line wins over an earlier one.
//
// Every other line is left out and described in problems by its number, never
// by its content, which may be secret.
func ParseEnvFile(content string) (vars []Variable, problems []string) {
	lines := strings.Split(content, "\n")
	bad := func(i int, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("line %d ", i+1)+fmt.Sprintf(format, args...))
	}
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSuffix(lines[i], "\r")
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		start := i
		name, value, ok := strings.Cut(line, "=")
		if heredoc, word, isHeredoc := strings.Cut(line, "<<"); isHeredoc && isName(heredoc) && word != "" {
			end := indexLine(lines, i+1, word)
			if end < 0 {
				bad(i, "starts a value that ends with %q, and no such line follows", word)
				break
			}
			name, value, ok = heredoc, strings.Join(lines[i+1:end], "\n"), true
			i = end
		}
		switch {
		case !ok:
			bad(start, "is not of the form KEY=VALUE")
		case !isName(name):
			bad(start, "does not start with a variable name (letters, digits and _, no digit first, no spaces around it)")
		case name == EnvFileVariable:
			bad(start, "sets %s itself, which cannot be changed", EnvFileVariable)
		case strings.ContainsRune(value, 0):
			bad(start, "sets %s to a value with a NUL byte", name)
		case len(name)+len(value) > MaxEnvValueBytes:
			bad(start, "sets %s to %d bytes, more than the limit of %d", name, len(value), MaxEnvValueBytes)
		default:
			vars = append(vars, Variable{name, value})
		}
	}
	return vars, problems
}

func indexLine(lines []string, from int, want string) int {
	for i := from; i < len(lines); i++ {
		if strings.TrimSuffix(lines[i], "\r") == want {
			return i
		}
	}
	return -1
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
