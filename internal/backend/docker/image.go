package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/stall"
)

// Reasons of a StartError.
const (
	reasonImage    = "image"
	reasonLimits   = "limits"
	reasonNetwork  = "network"
	reasonExecutor = "executor"
	reasonUser     = "user"
)

// imageFacts is what is asked of an image.
type imageFacts struct {
	Reference    string
	ID           string
	Architecture string
	User         string
}

// image returns the facts of an image, pulling it first as the policy says.
func (b *Backend) image(ctx context.Context, want api.DockerImage, setup io.Writer) (imageFacts, error) {
	if b.config.PullPolicy != PullAlways {
		facts, err := b.inspectImage(ctx, want.Reference)
		switch {
		case err == nil:
			fmt.Fprintf(setup, "image %s is present\n", want.Reference)
			b.noteImage(facts, false)
			return facts, nil
		case !errdefs.IsNotFound(err):
			return imageFacts{}, imageError(want.Reference, err)
		case b.config.PullPolicy == PullNever:
			return imageFacts{}, startError(reasonImage,
				"image %q is not on this engine, and the agent's pull policy is never: load the image, or set the policy to missing", want.Reference)
		}
	}
	before, unknown := b.inspectImage(ctx, want.Reference)
	if err := b.pull(ctx, want, setup); err != nil {
		return imageFacts{}, err
	}
	facts, err := b.inspectImage(ctx, want.Reference)
	if err != nil {
		return imageFacts{}, imageError(want.Reference, err)
	}
	// The image is of this agent's bringing when its name meant none before, or another.
	b.noteImage(facts, errdefs.IsNotFound(unknown) || unknown == nil && facts.ID != before.ID)
	return facts, nil
}

func (b *Backend) inspectImage(ctx context.Context, name string) (imageFacts, error) {
	ctx, cancel := b.call(ctx)
	defer cancel()
	found, err := b.client.ImageInspect(ctx, name)
	if err != nil {
		return imageFacts{}, err
	}
	if found.Os != "" && found.Os != "linux" {
		return imageFacts{}, startError(reasonImage, "image %q is for %s: a job needs one for linux", name, found.Os)
	}
	facts := imageFacts{Reference: name, ID: found.ID, Architecture: architecture(found.Architecture)}
	if found.Config != nil {
		facts.User = found.Config.User
	}
	return facts, nil
}

// architecture returns Go's name of an architecture.
func architecture(name string) string {
	switch name {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return name
}

// pull pulls an image. What may pass by itself (a registry that is busy or
// unreachable) is tried again for a while.
func (b *Backend) pull(ctx context.Context, want api.DockerImage, setup io.Writer) error {
	named, err := reference.ParseNormalizedNamed(want.Reference)
	if err != nil {
		return startError(reasonImage, "image %q is no image reference: want something like registry.example.com/name:tag", want.Reference)
	}
	auth, err := b.registryAuth(ctx, named, want.Credentials)
	if err != nil {
		return &backend.StartError{Reason: reasonImage, Err: fmt.Errorf("pull image %q: %w", want.Reference, err)}
	}
	fmt.Fprintf(setup, "pulling image %s\n", want.Reference)
	pullOnce := func() error {
		err := b.pullOnce(ctx, reference.TagNameOnly(named).String(), auth, setup)
		if err != nil && (ctx.Err() != nil || !passing(err)) {
			return backoff.Permanent(err)
		}
		return err
	}
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second), backoff.WithMaxElapsedTime(b.config.PullRetry))
	err = backoff.RetryNotify(pullOnce, backoff.WithContext(wait, ctx), func(err error, after time.Duration) {
		fmt.Fprintf(setup, "pull failed, trying again in %s: %s\n", after.Round(time.Second/10), registryMessage(err))
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return imageError(want.Reference, err)
	}
	return nil
}

// pullOnce pulls an image, for as long as there is progress.
func (b *Backend) pullOnce(ctx context.Context, name, auth string, setup io.Writer) error {
	stalled := fmt.Errorf("no progress for %v", b.config.PullStall)
	pullCtx, watch := stall.New(ctx, b.config.PullStall, stalled)
	defer watch.Stop()
	stream, err := b.client.ImagePull(pullCtx, name, image.PullOptions{RegistryAuth: auth})
	if err == nil {
		defer stream.Close()
		err = copyProgress(setup, stall.Reader(stream, watch.Touch), time.Now)
	}
	if err != nil && errors.Is(context.Cause(pullCtx), stalled) {
		return stalled
	}
	return err
}

// failure is a kind of failed pull. Engines of all ages pass on a registry's
// refusal as a 404, a 500 or a message in the stream, so that only its text
// tells the kinds apart. Nothing depends on it but the advice, and whether to
// try again.
type failure struct {
	texts  []string
	advice string
}

var finalFailures = []failure{
	{[]string{"toomanyrequests", "rate limit"}, "the registry's rate limit is reached: give the image credentials, wait, or use a mirror"},
	{[]string{"denied", "unauthorized", "authentication required", "no basic auth", "incorrect username or password"}, "check the image's name, and the credentials in the deployment settings or in the docker config of the agent's host"},
	{[]string{"manifest unknown", "not found", "no such image", "name unknown"}, "check the image's name and tag"},
	{[]string{"no progress for"}, "the registry or the network to it hangs: look at both from the engine's host"},
	{[]string{"no matching manifest", "does not match the specified platform"}, "the image does not exist for this engine's architecture"},
	{[]string{"no space left on device"}, "the engine's disk is full: free some space on its host, for example with \"docker system prune\""},
	{[]string{"server gave http response to https client"}, "the registry speaks plain HTTP: list it under insecure-registries in the engine's daemon.json"},
	{[]string{"x509:", "certificate"}, "the engine does not trust the registry's certificate: install its CA under /etc/docker/certs.d on the engine's host"},
	{[]string{"invalid reference", "invalid tag"}, "check the image's name and tag"},
}

// passing reports whether a pull that failed may succeed when tried again.
func passing(err error) bool {
	if errdefs.IsNotFound(err) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) || errdefs.IsInvalidArgument(err) {
		return false
	}
	return adviceFor(err) == ""
}

func adviceFor(err error) string {
	text := strings.ToLower(err.Error())
	for _, f := range finalFailures {
		for _, t := range f.texts {
			if strings.Contains(text, t) {
				return f.advice
			}
		}
	}
	return ""
}

// imageError is the error for a job's log: the registry's own words, and what
// to check.
func imageError(name string, err error) error {
	var already *backend.StartError
	if errors.As(err, &already) || client.IsErrConnectionFailed(err) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	advice := adviceFor(err)
	if advice == "" {
		advice = "check that the registry can be reached from the engine's host"
	}
	return &backend.StartError{Reason: reasonImage, Err: fmt.Errorf("image %q: %w (%s)", name, errors.New(registryMessage(err)), advice)}
}

// registryMessage strips what the engine puts before the words of the registry.
func registryMessage(err error) string {
	return strings.TrimPrefix(err.Error(), "Error response from daemon: ")
}

func startError(reason, format string, args ...any) *backend.StartError {
	return &backend.StartError{Reason: reason, Err: fmt.Errorf(format, args...)}
}
