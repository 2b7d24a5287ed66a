package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/google/uuid"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/backendtest"
	"github.com/longshore-run/longshore/internal/backend/docker"
	"github.com/longshore-run/longshore/internal/testkit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		backendtest.RemoveExecutor()
		os.Exit(code)
	}))
}

// engine is the real Docker engine, as an operator uses it.
type engine struct{ *client.Client }

// newEngine skips when there is no engine.
func newEngine(t *testing.T) engine {
	t.Helper()
	testkit.Need(t, "docker")
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return engine{c}
}

// image makes an image of its own for a test, from nothing but files, and
// removes it at the end.
func (e engine) image(t *testing.T, files map[string]string, changes ...string) string {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, text := range files {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(text, "->"); ok {
			header.Typeflag, header.Linkname, header.Size, text = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := "longshore-test/" + uuid.NewString() + ":latest"
	out, err := e.ImageImport(t.Context(), image.ImportSource{Source: &archive, SourceName: "-"}, name, image.ImportOptions{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := e.ImageRemove(context.Background(), name, image.RemoveOptions{Force: true})
		if err != nil && !errdefs.IsNotFound(err) {
			t.Errorf("remove image: %v", err)
		}
	})
	return name
}

// source returns an executor that no other test has, so that its volume is this
// test's own, and removes that volume at the end.
func (e engine) source(t *testing.T) backend.ExecutorSource {
	t.Helper()
	data, err := os.ReadFile(backendtest.Executor(t))
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/executor"
	data = append(data, uuid.NewString()...) // behind the end of the ELF file
	if err := os.WriteFile(path, data, 0o700); err != nil {
		t.Fatal(err)
	}
	name, err := docker.VolumeName(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.VolumeRemove(context.Background(), name, true); err != nil {
			t.Errorf("remove volume: %v", err)
		}
	})
	return func(context.Context, string) (string, error) { return path, nil }
}

func newBackend(t *testing.T, config docker.Config) *docker.Backend {
	t.Helper()
	if config.Log == nil {
		config.Log = zaptest.NewLogger(t)
	}
	if config.DockerConfigDir == "" {
		config.DockerConfigDir = t.TempDir()
	}
	b, err := docker.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// containers returns the ids of a job's containers.
func (e engine) containers(t *testing.T, jobID string) []string {
	t.Helper()
	found, err := e.ContainerList(context.Background(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", backend.LabelJob+"="+jobID)),
	})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range found {
		ids = append(ids, c.ID)
	}
	return ids
}

func (e engine) inspect(t *testing.T, jobID string) container.InspectResponse {
	t.Helper()
	ids := e.containers(t, jobID)
	if len(ids) != 1 {
		t.Fatalf("containers of job %s: %q, want one", jobID, ids)
	}
	found, err := e.ContainerInspect(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// harness runs the suite in containers of an image.
func (e engine) harness(t *testing.T, name string) backendtest.Harness {
	config := docker.Config{PullPolicy: docker.PullNever, Network: "none", ExecutorSource: e.source(t), Owner: uuid.NewString()}
	return backendtest.Harness{
		New:  func(t *testing.T) backend.Backend { return newBackend(t, config) },
		Next: func(t *testing.T, _ backend.Backend) backend.Backend { return newBackend(t, config) },
		Other: func(t *testing.T) backend.Backend {
			other := config
			other.Owner = uuid.NewString()
			return newBackend(t, other)
		},
		Half: func(t *testing.T, _ backend.Backend, spec backend.Spec) {
			_, err := e.ContainerCreate(t.Context(), &container.Config{Image: name, Cmd: []string{"true"}, Labels: map[string]string{
				backend.LabelJob: spec.Job.JobID, backend.LabelDeployment: spec.Job.DeploymentID, backend.LabelOwner: config.Owner,
			}}, nil, nil, nil, "longshore-"+spec.Job.JobID)
			if err != nil {
				t.Fatal(err)
			}
		},
		Image:          api.DockerImage{Reference: name},
		EnforcesMemory: true,
		Isolates:       true,
		Left:           e.containers,
		Lose: func(t *testing.T, jobID string) {
			if err := e.ContainerRemove(t.Context(), e.inspect(t, jobID).ID, container.RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		},
		Labels: func(t *testing.T, jobID string) map[string]string { return e.inspect(t, jobID).Config.Labels },
		Describe: func(t *testing.T, jobID string) string {
			found := e.inspect(t, jobID)
			top, err := e.ContainerTop(t.Context(), found.ID, []string{"axeww"})
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal([]any{found, top})
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		},
		File: func(t *testing.T, jobID, name string) ([]byte, bool) {
			stream, _, err := e.CopyFromContainer(t.Context(), e.inspect(t, jobID).ID, "/longshore/job/"+name)
			if errdefs.IsNotFound(err) {
				return nil, false
			}
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			archive := tar.NewReader(stream)
			if _, err := archive.Next(); err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			return data, true
		},
		SlowStart: func(t *testing.T) (backend.Backend, api.DockerImage) {
			r := e.newRegistry(t)
			r.stuck = make(chan struct{})
			t.Cleanup(func() { close(r.stuck) })
			config := config
			config.PullPolicy = docker.PullAlways
			return newBackend(t, config), api.DockerImage{Reference: r.reference("latest")}
		},
		BrokenStart: map[string]func(*testing.T, backend.Spec) (backend.Backend, backend.Spec){
			"an image that is not there": func(t *testing.T, spec backend.Spec) (backend.Backend, backend.Spec) {
				spec.Image.Reference = "longshore-test/no-such-image:latest"
				return newBackend(t, config), spec
			},
			"too little memory": func(t *testing.T, spec backend.Spec) (backend.Backend, backend.Spec) {
				spec.Limits.MemoryBytes = 1 << 20
				return newBackend(t, config), spec
			},
			"a network that is not there": func(t *testing.T, spec backend.Spec) (backend.Backend, backend.Spec) {
				config := config
				config.Network = "longshore-test-no-such-network"
				return newBackend(t, config), spec
			},
			"a user that is not there": func(t *testing.T, spec backend.Spec) (backend.Backend, backend.Spec) {
				config := config
				config.User = "nobody-of-that-name"
				return newBackend(t, config), spec
			},
		},
	}
}

func TestContract(t *testing.T) {
	for name, test := range map[string]struct {
		files   map[string]string
		changes []string
	}{
		"an image of nothing":          {nil, nil},
		"an image whose user is named": {map[string]string{"etc/passwd": "root:x:0:0::/:/bin/sh\nworker:x:1234:2345::/:/bin/sh\n"}, []string{"USER worker"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			backendtest.Run(t, e.harness(t, e.image(t, test.files, test.changes...)))
		})
	}
}
