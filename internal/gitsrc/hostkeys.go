package gitsrc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	skeema "github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// PublicHostKeys are the host keys that the four large hosts publish:
//
//	https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/githubs-ssh-key-fingerprints
//	https://docs.gitlab.com/user/gitlab_com/#ssh-known_hosts-entries
//	https://support.atlassian.com/bitbucket-cloud/docs/configure-ssh-and-two-step-verification/
//	https://learn.microsoft.com/azure/devops/repos/git/use-ssh-keys-to-authenticate
//
// A known_hosts file that knows one of these hosts is believed instead.
const PublicHostKeys = `github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl
github.com ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=
github.com ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQCj7ndNxQowgcQnjshcLrqPEiiphnt+VTTvDP6mHBL9j1aNUkY4Ue1gvwnGLVlOhGeYrnZaMgRK6+PKCUXaDbC7qtbW8gIkhL7aGCsOr/C56SJMy/BCZfxd1nWzAOxSDPgVsmerOBYfNqltV9/hWCqBywINIR+5dIg6JTJ72pcEpEjcYgXkE2YEFXV1JHnsKgbLWNlhScqb2UmyRkQyytRLtL+38TGxkxCflmO+5Z8CSSNY7GidjMIZ7Q4zMjA2n1nGrlTDkzwDCsw+wqFPGQA179cnfGWOWRVruj16z6XyvxvjJwbz0wQZ75XK5tKSb7FNyeIEs4TT4jk+S4dhPeAUC5y+bDYirYgM4GC7uEnztnZyaVWQ7B381AK4Qdrwt51ZqExKbQpTUNn+EjqoTwvqNj4kqx5QUCI0ThS/YkOxJCXmPUWZbhjpCg56i+2aB6CmK2JGhn57K5mj0MNdBXA4/WnwH6XoPWJzK5Nyu2zB3nAZp+S5hpQs+p1vN1/wsjk=
gitlab.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf
gitlab.com ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFSMqzJeV9rUzU4kWitGjeR4PWSa29SPqJ1fVkhtj3Hw9xjLVXVYrU9QlYWrOLXBpQ6KWjbjTDTdDkoohFzgbEY=
gitlab.com ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCsj2bNKTBSpIYDEGk9KxsGh3mySTRgMtXL583qmBpzeQ+jqCMRgBqB98u3z++J1sKlXHWfM9dyhSevkMwSbhoR8XIq/U0tCNyokEi/ueaBMCvbcTHhO7FcwzY92WK4Yt0aGROY5qX2UKSeOvuP4D6TPqKF1onrSzH9bx9XUf2lEdWT/ia1NEKjunUqu1xOB/StKDHMoX4/OKyIzuS0q/T1zOATthvasJFoPrAjkohTyaDUz2LN5JoH839hViyEG82yB+MjcFV5MU3N1l1QL3cVUCh93xSaua1N85qivl+siMkPGbO5xR/En4iEY6K2XPASUEMaieWVNTRCtJ4S8H+9
bitbucket.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIazEu89wgQZ4bqs3d63QSMzYVa0MuJ2e2gKTKqu+UUO
bitbucket.org ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPIQmuzMBuKdWeF4+a2sjSSpBK0iqitSQ+5BM9KhpexuGt20JpTVM7u5BDZngncgrqDMbWdxMWWOGtZ9UgbqgZE=
bitbucket.org ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQDQeJzhupRu0u0cdegZIa8e86EG2qOCsIsD1Xw0xSeiPDlCr7kq97NLmMbpKTX6Esc30NuoqEEHCuc7yWtwp8dI76EEEB1VqY9QJq6vk+aySyboD5QF61I/1WeTwu+deCbgKMGbUijeXhtfbxSxm6JwGrXrhBdofTsbKRUsrN1WoNgUa8uqN1Vx6WAJw1JHPhglEGGHea6QICwJOAr/6mrui/oB7pkaWKHj3z7d1IC4KWLtY47elvjbaTlkN04Kc/5LFEirorGYVbt15kAUlqGM65pk6ZBxtaO3+30LVlORZkxOh+LKL/BvbZ/iRNhItLqNyieoQj/uh/7Iv4uyH/cV/0b4WDSd3DptigWq84lJubb9t/DnZlrJazxyDCulTmKdOR7vs9gMTo+uoIrPSb8ScTtvw65+odKAlBj59dhnVp9zd7QUojOpXlL62Aw56U4oO+FALuevvMjiWeavKhJqlR7i5n9srYcrNV7ttmDw7kf/97P5zauIhxcjX+xHv4M=
ssh.dev.azure.com ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7Hr1oTWqNqOlzGJOfGJ4NakVyIzf1rXYd4d7wo6jBlkLvCA4odBlL0mDUyZ0/QUfTTqeu+tm22gOsv+VrVTMk6vwRU75gY/y9ut5Mb3bR5BV58dKXyq9A9UeB5Cakehn5Zgm6x1mKoVyf+FFn26iYqXJRgzIZZcZ5V6hrE0Qg39kZm4az48o0AUbf6Sp4SLdvnuMa2sVNwHBboS7EJkm57XQPVU3/QpyNLHbWDdzwtrlS+ez30S3AdYhLKEOxAG8weOnyrtLJAUen9mTkol8oII1edf7mWWbWVf0nBmly21+nZcmCTISQBtdcyPaEno7fFQMDD26/s0lfKob4Kw8H
`

// DefaultKnownHosts returns the known_hosts files that OpenSSH would read: those
// that SSH_KNOWN_HOSTS lists (as PATH lists directories), else the user's and
// the machine's.
func DefaultKnownHosts(getenv func(string) string) []string {
	if files := filepath.SplitList(getenv("SSH_KNOWN_HOSTS")); len(files) > 0 {
		return files
	}
	files := []string{"/etc/ssh/ssh_known_hosts"}
	if home := getenv("HOME"); home != "" {
		files = append([]string{filepath.Join(home, ".ssh", "known_hosts")}, files...)
	}
	return files
}

// hostKeys decides which host keys to trust.
type hostKeys struct {
	db    *skeema.HostKeyDB
	files []string
	learn func(address string, key ssh.PublicKey) error // nil when hosts that are not known are refused
}

func readHostKeys(files []string) (*hostKeys, error) {
	var there []string
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			there = append(there, f)
		}
	}
	db, err := skeema.NewDB(there...)
	if err != nil {
		return nil, problem(KindHostKeyUnknown, "the known_hosts file cannot be read: "+err.Error(), "Correct or remove the line it names.")
	}
	return &hostKeys{db: db, files: files}, nil
}

// algorithms returns the host key algorithms to ask for at address, so that the
// server presents a key of a kind that is known. Nil means any.
func (h *hostKeys) algorithms(address string) []string {
	if known := h.db.HostKeyAlgorithms(address); len(known) > 0 {
		return known
	}
	var algorithms []string
	for _, key := range builtInKeys(address) {
		switch key.Type() {
		case ssh.KeyAlgoRSA:
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA)
		default:
			algorithms = append(algorithms, key.Type())
		}
	}
	return algorithms
}

// check is an ssh.HostKeyCallback.
func (h *hostKeys) check(address string, remote net.Addr, key ssh.PublicKey) error {
	err := h.db.HostKeyCallback()(address, remote, key)
	var (
		wrong   *knownhosts.KeyError
		revoked *knownhosts.RevokedError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return problem(KindHostKeyChanged, "the host key of "+address+" is revoked in "+revoked.Revoked.Filename, "Ask who runs the host for its present key.")
	case !errors.As(err, &wrong):
		return problem(KindHostKeyUnknown, "the host key of "+address+" cannot be checked: "+err.Error(), "")
	case len(wrong.Want) > 0:
		return changed(address, key, fmt.Sprintf("%s:%d", wrong.Want[0].Filename, wrong.Want[0].Line))
	}
	if known := builtInKeys(address); len(known) > 0 {
		if slices.ContainsFunc(known, func(k ssh.PublicKey) bool { return string(k.Marshal()) == string(key.Marshal()) }) {
			return nil
		}
		return changed(address, key, "the keys that the host publishes")
	}
	if h.learn != nil {
		if err := h.learn(address, key); err != nil {
			return problem(KindHostKeyUnknown, "the host key of "+address+" cannot be noted: "+err.Error(), "")
		}
		return nil
	}
	return problem(KindHostKeyUnknown,
		fmt.Sprintf("the host key of %s is not known (%s, %s)", address, key.Type(), ssh.FingerprintSHA256(key)),
		fmt.Sprintf("Compare the fingerprint with the one that the host's owner publishes. If it is right, add this line to one of %s: %s",
			strings.Join(h.files, ", "), knownhosts.Line([]string{address}, key)))
}

func changed(address string, key ssh.PublicKey, where string) error {
	return problem(KindHostKeyChanged,
		fmt.Sprintf("the host key of %s (%s, %s) is not the one known from %s", address, key.Type(), ssh.FingerprintSHA256(key), where),
		"Someone may be between you and the host. If its owner says that the key was changed, replace the line.")
}

// builtInKeys returns the keys of PublicHostKeys for address.
func builtInKeys(address string) []ssh.PublicKey {
	name := knownhosts.Normalize(address)
	var keys []ssh.PublicKey
	rest := []byte(PublicHostKeys)
	for {
		_, hosts, key, _, after, err := ssh.ParseKnownHosts(rest)
		if err != nil { // the end
			return keys
		}
		if slices.Contains(hosts, name) {
			keys = append(keys, key)
		}
		rest = after
	}
}
