package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/distribution/reference"
	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	helperclient "github.com/docker/docker-credential-helpers/client"
	helpers "github.com/docker/docker-credential-helpers/credentials"
	"github.com/docker/docker/api/types/registry"

	"github.com/longshore-run/longshore/internal/api"
)

// hubServer is the key under which credentials of Docker Hub are kept.
const hubServer = "https://index.docker.io/v1/"

// registryAuth returns the credentials for a pull, encoded for the engine: the
// job's own, else those of the docker config or of its credential helpers, else
// none (an empty text).
func (b *Backend) registryAuth(ctx context.Context, name reference.Named, own *api.ImageCredentials) (string, error) {
	server := reference.Domain(name)
	if server == "docker.io" {
		server = hubServer
	}
	if own != nil {
		if len(own.Password.Ciphertext) > 0 {
			return "", errors.New("the password of the image's credentials is still encrypted")
		}
		return registry.EncodeAuthConfig(registry.AuthConfig{
			Username: own.Username, Password: own.Password.Value, ServerAddress: server,
		})
	}
	auth, err := b.configuredAuth(ctx, server)
	if err != nil || auth == (registry.AuthConfig{}) {
		return "", err
	}
	return registry.EncodeAuthConfig(auth)
}

// configuredAuth asks the docker config of the agent's host. It is read for
// every pull, so that a later "docker login" needs no restart.
func (b *Backend) configuredAuth(ctx context.Context, server string) (registry.AuthConfig, error) {
	file, err := b.dockerConfig()
	if err != nil || file == nil {
		return registry.AuthConfig{}, err
	}
	helper := file.CredentialsStore
	if own, ok := file.CredentialHelpers[server]; ok {
		helper = own
	}
	if helper != "" {
		auth, err := askHelper(ctx, helper, server)
		if err != nil || auth != (registry.AuthConfig{}) {
			return auth, err
		}
	}
	auth, err := credentials.NewFileStore(file).Get(server)
	if err != nil {
		return registry.AuthConfig{}, err
	}
	if auth.Username == "" && auth.Password == "" && auth.IdentityToken == "" && auth.RegistryToken == "" {
		return registry.AuthConfig{}, nil
	}
	return registry.AuthConfig{
		Username: auth.Username, Password: auth.Password, ServerAddress: server,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	}, nil
}

// dockerConfig returns nil when there is no config.
func (b *Backend) dockerConfig() (*configfile.ConfigFile, error) {
	path := filepath.Join(b.config.DockerConfigDir, "config.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // no config is an answer
	}
	if err != nil {
		return nil, err
	}
	file, err := dockerconfig.LoadFromReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

// askHelper runs docker-credential-<helper>. No credentials is no error.
func askHelper(ctx context.Context, helper, server string) (registry.AuthConfig, error) {
	program := "docker-credential-" + helper
	found, err := helperclient.Get(helperProgram(ctx, program), server)
	switch {
	case helpers.IsErrCredentialsNotFound(err):
		return registry.AuthConfig{}, nil
	case err != nil:
		return registry.AuthConfig{}, fmt.Errorf("credentials for %s: %s: %w", server, program, err)
	case found.Username == "<token>":
		return registry.AuthConfig{IdentityToken: found.Secret, ServerAddress: server}, nil
	}
	return registry.AuthConfig{Username: found.Username, Password: found.Secret, ServerAddress: server}, nil
}

// helperProgram runs a credential helper under ctx; the library's own way
// cannot be canceled, and some helpers ask a network.
func helperProgram(ctx context.Context, program string) helperclient.ProgramFunc {
	return func(args ...string) helperclient.Program {
		return helperCommand{exec.CommandContext(ctx, program, args...)}
	}
}

type helperCommand struct{ *exec.Cmd }

func (c helperCommand) Input(in io.Reader) { c.Stdin = in }
