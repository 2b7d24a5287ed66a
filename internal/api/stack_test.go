package api_test

import (
	"testing"

	"github.com/longshore-run/longshore/internal/api"
)

func TestStackIdentity(t *testing.T) {
	t.Parallel()
	step := func(name, run string) api.Step { return api.Step{Name: name, Run: run} }
	operation := step("pulumi update", `"${LONGSHORE_EXECUTOR:-./pulumi-deploy-executor}" pulumi update --stackIdentity="acme/shop/dev" --workDir="deployment"`)
	for name, tc := range map[string]struct {
		steps []api.Step
		want  string
	}{
		"as services write it":     {[]api.Step{operation}, "acme/shop/dev"},
		"without quotes":           {[]api.Step{step("x", "executor pulumi up --stackIdentity acme/shop/dev")}, "acme/shop/dev"},
		"several times the same":   {[]api.Step{operation, step("Save cache", `x cache save --stackIdentity="acme/shop/dev"`)}, "acme/shop/dev"},
		"not what a user writes":   {[]api.Step{step("Pre-run command 1", `x --stackIdentity="acme/shop/prod"`), operation}, "acme/shop/dev"},
		"not when there are two":   {[]api.Step{operation, step("x", `x --stackIdentity="acme/shop/prod"`)}, ""},
		"not when it is escaped":   {[]api.Step{step("x", `x --stackIdentity="acme/shop/$STACK"`)}, ""},
		"not with two parts":       {[]api.Step{step("x", `x --stackIdentity="shop/dev"`)}, ""},
		"not with four parts":      {[]api.Step{step("x", `x --stackIdentity="a/b/c/d"`)}, ""},
		"nor when there is nobody": {nil, ""},
	} {
		if got := (api.JobDefinition{Steps: tc.steps}).StackIdentity(); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
