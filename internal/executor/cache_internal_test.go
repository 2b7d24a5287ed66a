package executor

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/workflow"
)

func TestAroundInstall(t *testing.T) {
	t.Parallel()
	cache := &api.JobCache{URL: "http://127.0.0.1:1", Token: "t", Stack: "acme/shop/dev"}
	step := func(name, run string) api.Step { return api.Step{Name: name, Run: run} }
	setup := step("Setup", "")
	source := step("Get source", `./pulumi-deploy-executor getsource git --repoURL="u" --workDir="deployment" --repoDir="infra"`)
	install := step("Download dependencies", `./pulumi-deploy-executor dependencies download --workDir="deployment/infra"`)
	want := func(index int, flags ...string) map[int]workflow.Around {
		command := func(verb string) []string {
			return append([]string{"/x", "cache", verb}, flags...)
		}
		return map[int]workflow.Around{index: {Before: command("restore"), After: command("save")}}
	}
	all := []string{"--workDir=deployment/infra", "--stackIdentity=acme/shop/dev", "--repoDir=infra"}
	onlyRestore := want(2, all...)
	onlyRestore[2] = workflow.Around{Before: onlyRestore[2].Before}
	for name, tc := range map[string]struct {
		steps []api.Step
		cache *api.JobCache
		want  map[int]workflow.Around
	}{
		"a service without a cache": {[]api.Step{setup, source, install}, cache, want(2, all...)},
		"no folder":                 {[]api.Step{setup, step("Download dependencies", "x dependencies download --workDir deployment")}, cache, want(1, all[0][:len("--workDir=deployment")], all[1])},
		"a stack that will be gone": {[]api.Step{setup, source, install, step("pulumi destroy", `x pulumi destroy --deleteAfterDestroy`)}, cache, onlyRestore},
		"steps of its own":          {[]api.Step{setup, source, step("Restore cache", "x"), install}, cache, nil},
		"no cache":                  {[]api.Step{setup, source, install}, nil, nil},
		"a cache that is off":       {[]api.Step{setup, source, install}, &api.JobCache{Off: "why"}, nil},
		"nothing to install":        {[]api.Step{setup, source}, cache, nil},
		"a value for a shell":       {[]api.Step{setup, step("Download dependencies", `x --workDir="$HOME"`)}, cache, nil},
		"no directory":              {[]api.Step{setup, step("Download dependencies", `make`)}, cache, nil},
	} {
		if diff := cmp.Diff(tc.want, aroundInstall(api.JobDefinition{Steps: tc.steps}, tc.cache, "/x")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
