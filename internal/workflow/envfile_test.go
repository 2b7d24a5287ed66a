package workflow_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/workflow"
)

func TestParseEnvFile(t *testing.T) {
	type vars = []workflow.Variable
	for name, c := range map[string]struct {
		in       string
		want     vars
		problems int
	}{
		"nothing":                            {"", nil, 0},
		"a line":                             {"A=1\n", vars{{"A", "1"}}, 0},
		"no newline at the end":              {"A=1", vars{{"A", "1"}}, 0},
		"equals signs stay in the value":     {"A=b=c==\n", vars{{"A", "b=c=="}}, 0},
		"quotes stay":                        {`A="x y"` + "\n", vars{{"A", `"x y"`}}, 0},
		"nothing is expanded":                {"A=$(id) $B\n", vars{{"A", "$(id) $B"}}, 0},
		"carriage returns at the end go":     {"A=1\r\n", vars{{"A", "1"}}, 0},
		"an empty value":                     {"A=\n", vars{{"A", ""}}, 0},
		"comments and empty lines":           {"# A=1\n\n  \nB=2\n", vars{{"B", "2"}}, 0},
		"the order is kept":                  {"A=1\nA=2\n", vars{{"A", "1"}, {"A", "2"}}, 0},
		"several lines":                      {"A<<EOF\n1\n=2\nEOF\nB=3\n", vars{{"A", "1\n=2"}, {"B", "3"}}, 0},
		"several lines with CRLF":            {"A<<EOF\r\n1\r\nEOF\r\n", vars{{"A", "1\r"}}, 0},
		"a value may hold <<":                {"A=1<<2\n", vars{{"A", "1<<2"}}, 0},
		"several lines without an end":       {"A<<EOF\n1\nB=2\n", nil, 1},
		"no equals sign":                     {"A\nB=1\n", vars{{"B", "1"}}, 1},
		"spaces around the name":             {"A =1\n A=1\n", nil, 2},
		"a name with a digit first":          {"1A=1\n", nil, 1},
		"export is not a name":               {"export A=1\n", nil, 1},
		"PULUMI_ENV cannot be moved":         {"PULUMI_ENV=/x\n", nil, 1},
		"NUL bytes":                          {"A=\x00\n", nil, 1},
		"a value larger than Linux can pass": {"A=" + strings.Repeat("x", workflow.MaxEnvValueBytes) + "\n", nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, problems := workflow.ParseEnvFile(c.in)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("variables (-want +got):\n%s", diff)
			}
			if len(problems) != c.problems {
				t.Errorf("problems = %q, want %d", problems, c.problems)
			}
		})
	}
}

func TestParseEnvFileNamesLinesNotContents(t *testing.T) {
	_, problems := workflow.ParseEnvFile("A=1\nhunter2\n")
	if len(problems) != 1 || !strings.Contains(problems[0], "line 2") || strings.Contains(problems[0], "hunter2") {
		t.Errorf("problems = %q, want one that names line 2 and not its text", problems)
	}
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add("A=1\nB<<E\nx\nE\n")
	f.Fuzz(func(t *testing.T, in string) {
		vars, _ := workflow.ParseEnvFile(in)
		for _, v := range vars {
			if v.Name == "" || strings.ContainsAny(v.Name, "=\x00\n") || strings.ContainsRune(v.Value, 0) {
				t.Errorf("unusable variable %q", v)
			}
		}
	})
}
