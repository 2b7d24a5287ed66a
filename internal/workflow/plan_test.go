package workflow_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/workflow"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestPlans makes the plan of every testdata/plan/*.txtar: job.json (a job
// file) and environ, into want.json.
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			part := func(name string) []byte {
				for _, f := range archive.Files {
					if f.Name == name {
						return f.Data
					}
				}
				return nil
			}
			var job api.JobFile
			if err := json.Unmarshal(part("job.json"), &job); err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(workflow.NewPlan(workflow.Input{
				Definition:  job.Definition,
				Environ:     strings.Fields(string(part("environ"))),
				Env:         job.Env,
				Directory:   job.Directory,
				Timeout:     job.Timeout.Std(),
				StepTimeout: job.StepTimeout.Std(),
				ChangeGrace: job.ChangeGrace.Std(),
				QuickGrace:  job.QuickGrace.Std(),
			}), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			if *update {
				for i := range archive.Files {
					if archive.Files[i].Name == "want.json" {
						archive.Files[i].Data = got
					}
				}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(part("want.json")), string(got)); diff != "" {
				t.Errorf("plan differs (-want +got):\n%s", diff)
			}
		})
	}
}
