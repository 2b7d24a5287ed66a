package control

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/longshore-run/longshore/internal/api"
)

// eachSecret calls f with every value of r that may be secret, and its path.
// always is true where the value is one whatever the request says: passwords,
// tokens and keys. f may change the value.
func eachSecret(r *api.CreateDeploymentRequest, f func(path string, always bool, v *api.SecretValue) error) error {
	var errs []error
	visit := func(path string, always bool, v *api.SecretValue) {
		if v != nil {
			if err := f(path, always, v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", path, err))
			}
		}
	}
	auth := func(path string, a *api.GitAuthConfigRequest) {
		if a == nil {
			return
		}
		visit(path+".accessToken", true, a.AccessToken)
		if b := a.BasicAuth; b != nil {
			visit(path+".basicAuth.userName", false, b.UserName)
			visit(path+".basicAuth.password", true, b.Password)
		}
		if s := a.SSHAuth; s != nil {
			visit(path+".sshAuth.sshPrivateKey", true, s.SSHPrivateKey)
			visit(path+".sshAuth.password", true, s.Password)
		}
	}
	if s := r.SourceContext; s != nil && s.Git != nil {
		auth("sourceContext.git.gitAuth", s.Git.GitAuth)
	}
	if s := r.SourceContext; s != nil && s.Template != nil {
		auth("sourceContext.template.gitAuth", s.Template.GitAuth)
	}
	if e := r.ExecutorContext; e != nil && e.ExecutorImage != nil && e.ExecutorImage.Credentials != nil {
		visit("executorContext.executorImage.credentials.password", true, &e.ExecutorImage.Credentials.Password)
	}
	if o := r.OperationContext; o != nil {
		for _, name := range slices.Sorted(maps.Keys(o.EnvironmentVariables)) {
			v := o.EnvironmentVariables[name]
			visit("operationContext.environmentVariables."+name, false, &v)
			o.EnvironmentVariables[name] = v
		}
	}
	return errors.Join(errs...)
}

// sealSecrets replaces every secret of r by its ciphertext. A ciphertext that
// the client sent must open under our key. An empty secret stays as it is: it
// hides nothing, and those who check for missing values can see it.
func sealSecrets(r *api.CreateDeploymentRequest, sealer Sealer, stack StackRef) error {
	return eachSecret(r, func(_ string, always bool, v *api.SecretValue) error {
		if len(v.Ciphertext) > 0 {
			if _, err := sealer.Open(v.Ciphertext, stack.String()); err != nil {
				return errors.New("the ciphertext was not made by this service for this stack; send the value as {\"secret\":\"...\"}")
			}
			return nil
		}
		if strings.ContainsRune(v.Value, 0) {
			return errors.New("the value holds a NUL byte")
		}
		if !always && !v.Secret || v.Value == "" {
			return nil
		}
		sealed, err := sealer.Seal([]byte(v.Value), stack.String())
		if err != nil {
			return err
		}
		*v = api.SecretValue{Secret: true, Ciphertext: sealed}
		return nil
	})
}

// openSecrets is the inverse of sealSecrets.
func openSecrets(r *api.CreateDeploymentRequest, sealer Sealer, stack StackRef) error {
	return eachSecret(r, func(_ string, always bool, v *api.SecretValue) error {
		v.Secret = v.Secret || always
		if len(v.Ciphertext) == 0 {
			return nil
		}
		clear, err := sealer.Open(v.Ciphertext, stack.String())
		if err != nil {
			return err
		}
		*v = api.NewSecret(string(clear))
		return nil
	})
}
