package workflow_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/workflow"
)

// FuzzPlan: whatever a service sends as a definition is refused, or becomes a
// plan that can be walked.
func FuzzPlan(f *testing.F) {
	f.Add(`{"os":"linux","image":{"reference":"a"},"shell":"bash","timeout":"1h","env":{"A":"b"},"steps":[{"name":"Setup"},{"name":"x","run":"pulumi up","timeout":"5m","workingDir":"a/b"}]}`)
	f.Add(`{"image":{"isDefault":true},"env":{"PULUMI_CI_STACK":"s"},"steps":[{},{"run":"echo \u0000"}],"secretEnv":["A"],"envScopes":{"A":[1,-1]},"operation":"update"}`)
	f.Add(`{"image":{"reference":"a"},"shell":" ","timeout":-1,"steps":[{},{"workingDir":"../../etc"},{"workingDir":"/etc"}],"unknown":[[]]}`)
	f.Add(`{"steps":null,"timeout":1e300}`)
	f.Fuzz(func(t *testing.T, text string) {
		var def api.JobDefinition
		if json.Unmarshal([]byte(text), &def) != nil || def.Validate() != nil {
			return
		}
		plan := workflow.NewPlan(workflow.Input{Definition: def, Environ: []string{"PATH=/bin", "odd"}, Directory: "/work"})
		if len(plan.Steps) != len(def.Steps)-1 || len(plan.Shell) == 0 || plan.Timeout < 0 || plan.Grace <= 0 {
			t.Errorf("plan %+v of %s", plan, text)
		}
		for i, s := range plan.Steps {
			if s.Index != i+1 || !filepath.IsAbs(s.Dir) || s.Timeout < 0 || s.Script != def.Steps[i+1].Run {
				t.Errorf("step %+v of %s", s, text)
			}
			for _, entry := range s.Env {
				if name, _, ok := strings.Cut(entry, "="); !ok || name == "" || strings.Contains(entry, "\x00") {
					t.Errorf("variable %q of %s", entry, text)
				}
			}
		}
	})
}
