package docker_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/backendtest"
	"github.com/longshore-run/longshore/internal/backend/docker"
)

// pull starts a job from a registry's image and removes it. It returns the
// lines of its setup.
func (e engine) pull(t *testing.T, config docker.Config, image api.DockerImage) (string, error) {
	t.Helper()
	if config.ExecutorSource == nil {
		config.ExecutorSource = e.source(t)
	}
	config.Network = "none"
	spec := backendtest.Harness{Image: image}.Spec("report succeeded")
	var setup strings.Builder
	w, err := newBackend(t, config).Start(t.Context(), spec, &setup)
	if err != nil {
		if left := e.containers(t, spec.Job.JobID); len(left) > 0 {
			t.Errorf("Start() left %q behind", left)
		}
		return setup.String(), err
	}
	t.Cleanup(func() { _ = w.Remove(context.Background()) })
	if exit, err := w.Wait(t.Context()); err != nil || exit.Code != 0 {
		t.Errorf("Wait() = %+v, %v, want code 0", exit, err)
	}
	return setup.String(), w.Remove(t.Context())
}

// noExecutor is for pulls that fail: the executor is asked for only after them.
func noExecutor(context.Context, string) (string, error) { return "", errors.New("not reached") }

func TestPullShowsProgress(t *testing.T) {
	e := newEngine(t)
	r := e.newRegistry(t)
	setup, err := e.pull(t, docker.Config{}, api.DockerImage{Reference: r.reference("latest")})
	if err != nil {
		t.Fatalf("Start() = %v\n%s", err, setup)
	}
	for _, want := range []string{"pulling image " + r.reference("latest"), ": Pull complete\n", "Digest: sha256:", "created container ", "started container "} {
		if !strings.Contains(setup, want) {
			t.Errorf("setup lacks %q:\n%s", want, setup)
		}
	}
}

func TestPullPolicy(t *testing.T) {
	e := newEngine(t)
	r := e.newRegistry(t)
	image := api.DockerImage{Reference: r.reference("latest")}
	source := e.source(t)
	t.Run("never does not pull, and says so", func(t *testing.T) {
		_, err := e.pull(t, docker.Config{PullPolicy: docker.PullNever, ExecutorSource: noExecutor}, image)
		wantStartError(t, err, "pull policy is never")
		if r.hits.Load() != 0 {
			t.Errorf("the registry was asked %d times", r.hits.Load())
		}
	})
	t.Run("missing pulls what is missing", func(t *testing.T) {
		if _, err := e.pull(t, docker.Config{PullPolicy: docker.PullMissing, ExecutorSource: source}, image); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("missing does not pull what is there", func(t *testing.T) {
		before := r.hits.Load()
		setup, err := e.pull(t, docker.Config{PullPolicy: docker.PullMissing, ExecutorSource: source}, image)
		if err != nil || r.hits.Load() != before || !strings.Contains(setup, "is present") {
			t.Errorf("Start() = %v after %d requests:\n%s", err, r.hits.Load()-before, setup)
		}
	})
	t.Run("always asks the registry again", func(t *testing.T) {
		before := r.hits.Load()
		if _, err := e.pull(t, docker.Config{PullPolicy: docker.PullAlways, ExecutorSource: source}, image); err != nil || r.hits.Load() == before {
			t.Errorf("Start() = %v after %d requests, want some", err, r.hits.Load()-before)
		}
	})
}

func TestPullCredentials(t *testing.T) {
	e := newEngine(t)
	const user, password = "puller", "registry-s3cret"
	config := func(t *testing.T, text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	auths := func(host, user, password string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	helper := func(t *testing.T, script string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-suite"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	}
	for name, test := range map[string]struct {
		own    *api.ImageCredentials
		config func(t *testing.T, host string) string
		helper string
		fails  string // what the error says; empty for success
	}{
		"those of the job": {
			own: &api.ImageCredentials{Username: user, Password: api.NewSecret(password)},
		},
		"those of the job win over the docker config": {
			own:    &api.ImageCredentials{Username: user, Password: api.NewSecret(password)},
			config: func(t *testing.T, host string) string { return config(t, auths(host, user, "stale")) },
		},
		"those of the docker config": {
			config: func(t *testing.T, host string) string { return config(t, auths(host, user, password)) },
		},
		"those of a credential helper": {
			config: func(t *testing.T, host string) string {
				return config(t, fmt.Sprintf(`{"credHelpers":{%q:"suite"}}`, host))
			},
			helper: `read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"puller\",\"Secret\":\"registry-s3cret\"}"`,
		},
		"those of the credential store": {
			config: func(t *testing.T, _ string) string { return config(t, `{"credsStore":"suite"}`) },
			helper: `echo '{"Username":"puller","Secret":"registry-s3cret"}'`,
		},
		"a store that has none falls back to the file": {
			config: func(t *testing.T, host string) string {
				return config(t, strings.Replace(auths(host, user, password), "{", `{"credsStore":"suite",`, 1))
			},
			helper: `echo 'credentials not found in native keychain'; exit 1`,
		},
		"a helper that fails says so": {
			config: func(t *testing.T, _ string) string { return config(t, `{"credsStore":"suite"}`) },
			helper: `echo 'the keychain is locked'; exit 1`, fails: "the keychain is locked",
		},
		"a docker config that is broken says where": {
			config: func(t *testing.T, _ string) string { return config(t, `{"auths":`) }, fails: "config.json",
		},
		"wrong ones": {
			own: &api.ImageCredentials{Username: user, Password: api.NewSecret("wrong-s3cret")}, fails: "check the image's name, and the credentials",
		},
		"none": {fails: "check the image's name, and the credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			r := e.newRegistry(t)
			r.user, r.password = user, password
			c := docker.Config{PullRetry: time.Millisecond}
			if test.config != nil {
				c.DockerConfigDir = test.config(t, r.host())
			}
			if test.helper != "" {
				helper(t, test.helper)
			}
			if test.fails != "" {
				c.ExecutorSource = noExecutor
			}
			setup, err := e.pull(t, c, api.DockerImage{Reference: r.reference("latest"), Credentials: test.own})
			if test.fails == "" && err != nil {
				t.Errorf("Start() = %v, want success", err)
			}
			if test.fails != "" {
				wantStartError(t, err, test.fails)
			}
			if all := setup + fmt.Sprint(err); strings.Contains(all, "s3cret") {
				t.Errorf("a password shows:\n%s", all)
			}
		})
	}
}

func TestPullErrorsSayWhatToCheck(t *testing.T) {
	e := newEngine(t)
	t.Run("a tag that does not exist", func(t *testing.T) {
		r := e.newRegistry(t)
		_, err := e.pull(t, docker.Config{ExecutorSource: noExecutor}, api.DockerImage{Reference: r.reference("nowhere")})
		wantStartError(t, err, "manifest", "check the image's name and tag")
	})
	t.Run("a rate limit", func(t *testing.T) {
		r := e.newRegistry(t)
		r.rateLimited = true
		_, err := e.pull(t, docker.Config{ExecutorSource: noExecutor}, api.DockerImage{Reference: r.reference("latest")})
		wantStartError(t, err, "You have reached your pull rate limit", "give the image credentials")
	})
	t.Run("what is no reference", func(t *testing.T) {
		_, err := e.pull(t, docker.Config{ExecutorSource: noExecutor}, api.DockerImage{Reference: "Not An Image"})
		wantStartError(t, err, "no image reference")
	})
	t.Run("nobody there, after trying again", func(t *testing.T) {
		setup, err := e.pull(t, docker.Config{ExecutorSource: noExecutor, PullRetry: 1500 * time.Millisecond}, api.DockerImage{Reference: "127.0.0.1:1/nobody"})
		wantStartError(t, err, "connection refused", "can be reached")
		if !strings.Contains(setup, "trying again") {
			t.Errorf("setup does not speak of a second try:\n%s", setup)
		}
	})
	t.Run("a registry that is busy for a moment is asked again", func(t *testing.T) {
		r := e.newRegistry(t)
		r.busy.Store(5) // an engine asks a few times by itself
		setup, err := e.pull(t, docker.Config{}, api.DockerImage{Reference: r.reference("latest")})
		if err != nil || !strings.Contains(setup, "trying again") {
			t.Errorf("Start() = %v, want success after another try:\n%s", err, setup)
		}
	})
}

func wantStartError(t *testing.T, err error, texts ...string) {
	t.Helper()
	var start *backend.StartError
	if !errors.As(err, &start) || start.Reason != "image" {
		t.Fatalf("Start() = %v (%T), want a StartError about the image", err, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("Start() = %v, want it to say %q", err, text)
		}
	}
}
