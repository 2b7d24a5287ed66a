package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/longshore-run/longshore/internal/backend"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestPlan holds the translation of a spec into a container to its golden
// files: input.json is what goes in, want.json what the engine is asked for.
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("golden files: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var input struct {
				Config struct {
					Network, User, Directory string
					MirrorDirectory          string
					Capabilities             Capabilities
					ExtraHosts               []string
				}
				Spec backend.Spec
			}
			decoder := json.NewDecoder(bytes.NewReader(archive.Files[0].Data))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&input); err != nil {
				t.Fatal(err)
			}
			config := Config{
				Network: input.Config.Network, User: input.Config.User, Directory: input.Config.Directory,
				MirrorDirectory: input.Config.MirrorDirectory, Capabilities: input.Config.Capabilities, ExtraHosts: input.Config.ExtraHosts,
				ExecutorSource: func(context.Context, string) (string, error) { return "", nil },
			}
			if err := config.setDefaults(); err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(plan(config, input.Spec, imageFacts{ID: "sha256:image", Reference: input.Spec.Image.Reference}, "longshore-executor-hash"), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			if *update {
				archive.Files = append(archive.Files[:1], txtar.File{Name: "want.json", Data: got})
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 {
				t.Fatal("no want.json: run with -update")
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), string(got)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
