package docker_test

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"
	"github.com/google/uuid"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/backendtest"
	"github.com/longshore-run/longshore/internal/backend/docker"
)

func TestSweepRemovesWhatAgentsLeftThatAreGone(t *testing.T) {
	e := newEngine(t)
	name := e.image(t, nil)
	mark, owner := "longshore-test."+uuid.NewString(), uuid.NewString()
	b := newBackend(t, docker.Config{ExecutorSource: noExecutor, Owner: owner})
	half := func(owner string, labels ...string) string {
		t.Helper()
		l := map[string]string{backend.LabelOwner: owner, backend.LabelJob: uuid.NewString()}
		for _, label := range labels {
			l[label] = ""
		}
		c, err := e.ContainerCreate(t.Context(), &container.Config{Image: name, Cmd: []string{"/never"}, Labels: l}, nil, nil, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.ContainerRemove(context.Background(), c.ID, container.RemoveOptions{Force: true}) })
		return c.ID
	}
	abandoned, mine, unmarked := half("gone", mark), half(owner, mark), half("gone")
	for _, tc := range []struct {
		what  string
		after time.Duration
		gone  []string
	}{
		{"within the grace nothing goes", time.Hour, nil},
		{"after it what another agent left goes, and nothing else", 25 * time.Hour, []string{abandoned}},
	} {
		if _, err := b.SweepJobs(t.Context(), mark, time.Now().Add(tc.after)); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{abandoned, mine, unmarked} {
			_, err := e.ContainerInspect(t.Context(), id)
			if got, want := errdefs.IsNotFound(err), slices.Contains(tc.gone, id); got != want {
				t.Errorf("%s: container %s is gone: %t, want %t (%v)", tc.what, id[:12], got, want, err)
			}
		}
	}
}

func TestSweepRemovesExecutorsThatNobodyUses(t *testing.T) {
	e := newEngine(t)
	mark := "longshore-test." + uuid.NewString()
	b := newBackend(t, docker.Config{ExecutorSource: noExecutor})
	name := "longshore-test-" + uuid.NewString()
	if _, err := e.VolumeCreate(t.Context(), volume.CreateOptions{Name: name, Labels: map[string]string{mark: ""}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.VolumeRemove(context.Background(), name, true) })
	if removed, err := b.SweepVolumes(t.Context(), mark, time.Now().Add(time.Hour)); err != nil || len(removed) != 0 {
		t.Errorf("within the grace: removed %q, %v", removed, err)
	}
	if removed, err := b.SweepVolumes(t.Context(), mark, time.Now().Add(25*time.Hour)); err != nil || !slices.Equal(removed, []string{"volume " + name}) {
		t.Errorf("after it: removed %q, %v", removed, err)
	}
}

func TestSweepKeepsImagesWithinTheBudget(t *testing.T) {
	e := newEngine(t)
	source := e.source(t)
	now := time.Now()
	config := docker.Config{
		ExecutorSource: source, Network: "none", PullPolicy: docker.PullMissing, Owner: uuid.NewString(),
		ImageBudget: 2<<20 + 1<<19, PulledImages: filepath.Join(t.TempDir(), "images.json"),
	}
	b := newBackend(t, config)
	b.SetClock(func() time.Time { return now })
	run := func(reference string) {
		t.Helper()
		spec := backendtest.Harness{Image: api.DockerImage{Reference: reference}}.Spec("report succeeded")
		w, err := b.Start(t.Context(), spec, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
	}
	// Three images of 1 MiB, of which two fit; the first is used again, so that
	// the second is the one not used for longest. A fourth was there before.
	theirs := e.newRegistry(t).reference("latest")
	if _, err := e.pull(t, docker.Config{ExecutorSource: source}, api.DockerImage{Reference: theirs}); err != nil {
		t.Fatal(err)
	}
	first, second, third := e.newRegistry(t).reference("latest"), e.newRegistry(t).reference("latest"), e.newRegistry(t).reference("latest")
	run(theirs)
	run(first)
	run(second)
	run(third)
	run(first)

	next := newBackend(t, config) // what was pulled is remembered across processes
	next.SetClock(func() time.Time { return now })
	removed, err := next.SweepImages(t.Context())
	if err != nil || !slices.Equal(removed, []string{"image " + second}) {
		t.Errorf("SweepImages() = %q, %v, want %s", removed, err, second)
	}
	for _, reference := range []string{theirs, first, third} {
		if _, err := e.ImageInspect(t.Context(), reference); err != nil {
			t.Errorf("image %s: %v, want it kept", reference, err)
		}
	}
	if removed, err := next.SweepImages(t.Context()); err != nil || len(removed) != 0 {
		t.Errorf("once more: removed %q, %v", removed, err)
	}
}

func TestAPullThatHangsFails(t *testing.T) {
	e := newEngine(t)
	r := e.newRegistry(t)
	r.stuck = make(chan struct{})
	t.Cleanup(func() { close(r.stuck) })
	_, err := e.pull(t, docker.Config{ExecutorSource: noExecutor, PullStall: 2 * time.Second, PullRetry: time.Millisecond}, api.DockerImage{Reference: r.reference("latest")})
	wantStartError(t, err, "no progress for 2s", "hangs")
}
