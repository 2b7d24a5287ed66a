package executor

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

func TestReadCacheOutcomes(t *testing.T) {
	t.Parallel()
	hit := api.CacheOutcome{Action: api.CacheRestore, Manager: "npm", Result: api.CacheHit, Bytes: 7}
	const written = `{"action":"restore","manager":"npm","result":"hit","bytes":7}`
	write := func(content string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(content), 0o600) }
	}
	for name, tc := range map[string]struct {
		make func(path string) error
		want int // times a hit
		err  bool
	}{
		"what the commands write":        {write(`{"entries":[{"recipe":{},"restored":{"result":"hit"}}],"failed":true,"outcomes":[` + written + `]}`), 1, false},
		"no cache was used":              {func(string) error { return nil }, 0, false},
		"nothing came of it":             {write(`{"entries":[]}`), 0, false},
		"an unknown manager":             {write(`{"outcomes":[{"action":"restore","manager":"lsj-secret","result":"hit"},` + written + `]}`), 1, false},
		"an unknown action":              {write(`{"outcomes":[{"action":"burn","manager":"npm","result":"hit"},` + written + `]}`), 1, false},
		"an unknown result":              {write(`{"outcomes":[{"action":"restore","manager":"npm","result":"saved"},` + written + `]}`), 1, false},
		"numbers that cannot be":         {write(`{"outcomes":[{"action":"save","manager":"npm","result":"saved","bytes":-1},{"action":"save","manager":"npm","result":"saved","took":"300000h"},` + written + `]}`), 1, false},
		"a number that is none":          {write(`{"outcomes":[{"action":"save","manager":"npm","result":"saved","bytes":1e400}]}`), 0, true},
		"more than a job can have":       {write(`{"outcomes":[` + strings.Repeat(written+",", 9999) + written + `]}`), api.MaxCacheOutcomes, false},
		"larger than what is read":       {write(`{"outcomes":[` + written + `]}` + strings.Repeat(" ", maxCacheState)), 0, true},
		"half a file":                    {write(`{"outcomes":[` + written), 0, true},
		"a link to a file of others":     {func(path string) error { return os.Symlink("/etc/passwd", path) }, 0, true},
		"a directory":                    {func(path string) error { return os.Mkdir(path, 0o700) }, 0, true},
		"a pipe that nobody writes into": {func(path string) error { return syscall.Mkfifo(path, 0o600) }, 0, true},
	} {
		path := filepath.Join(t.TempDir(), cacheStateName)
		if err := tc.make(path); err != nil {
			t.Fatal(err)
		}
		got, err := readCacheOutcomes(path)
		if (err != nil) != tc.err {
			t.Errorf("%s: error %v", name, err)
		}
		var want api.CacheOutcomes
		for range tc.want {
			want = append(want, hit)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
