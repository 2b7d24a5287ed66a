package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/api"
)

// TestASecretShowsNowhere: a step prints its secret in every way it can think
// of; then the log, the server's files, the agent's files and output, and the
// engine's description of the container are searched for it.
func TestASecretShowsNowhere(t *testing.T) {
	t.Parallel()
	eachTarget(t, func(t *testing.T, on target) {
		const secret = "hunter2-and-a-half/9+x"
		s := newSite(t)
		agent := s.agent(on)
		ctx := bounded(t)
		stack := stackOf(t)
		created, err := s.Create(ctx, stack, request(t, on, func(r object) {
			variables(r)["API_KEY"] = object{"secret": secret}
			variables(r)["OTHER_KEY"] = object{"isSecret": true, "value": "second-" + secret}
			operation(r)["preRunCommands"] = []string{
				program,
				`echo "plain $API_KEY"; echo "twice $API_KEY$API_KEY"; printf '%s' "$API_KEY" | base64; printf 'x%s' "$API_KEY" | base64`,
				`printf '%s' "$API_KEY" | cut -c1-8 | tr -d '\n'; sleep 0.3; printf '%s' "$API_KEY" | cut -c9-; env; cat /proc/1/environ /proc/$PPID/cmdline 2>/dev/null; sleep 1`,
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		if on.name == "docker" {
			s.inspectWhileRunning(stack, created.ID, secret)
		}
		d, err := s.WaitEnd(ctx, stack, created.ID)
		if err != nil {
			t.Fatal(err)
		}
		log := s.log(stack, created.ID)
		if d.Status != api.StatusSucceeded {
			t.Fatalf("status = %s\n%s", d.Status, log)
		}
		s.clean(on, agent, created.ID) // a job in hand is remembered with its token
		token := strings.TrimSpace(read(t, filepath.Join(s.Dir, "agent-1-token")))
		for _, needle := range []string{
			secret, base64.StdEncoding.EncodeToString([]byte(secret)),
			base64.StdEncoding.EncodeToString([]byte("x" + secret))[4:24], "lsj-", token, s.Token,
		} {
			if strings.Contains(log, needle) {
				t.Errorf("the log holds %q:\n%s", needle, log)
			}
			if needle == token || needle == s.Token {
				continue // their owners' token files hold them, by request
			}
			searchFiles(t, s.Dir, needle)
			if strings.Contains(agent.Tail(), needle) {
				t.Errorf("the agent's output holds %q", needle)
			}
		}
		if !strings.Contains(log, "plain [secret]") {
			t.Errorf("the log should show that something was masked:\n%s", log)
		}
		for _, needle := range []string{token, s.Token} {
			searchFiles(t, filepath.Join(s.Dir, "data"), needle)
		}
		body, err := json.Marshal(d)
		if err != nil || bytes.Contains(body, []byte(secret)) {
			t.Errorf("the deployment as read back holds the secret: %s, %v", body, err)
		}
	})
}

// inspectWhileRunning looks at what the engine tells everybody who may ask.
func (s *site) inspectWhileRunning(stack any, id, secret string) {
	s.t.Helper()
	ctx := bounded(s.t)
	for {
		out, err := exec.CommandContext(ctx, "docker", "ps", "--quiet", "--no-trunc", "--filter", "label=run.longshore.deployment="+id).Output()
		if err != nil {
			s.t.Fatalf("docker ps: %v", err)
		}
		container := strings.TrimSpace(string(out))
		if container == "" {
			if ctx.Err() != nil {
				s.t.Fatal("no container with the deployment's label appeared")
			}
			continue
		}
		for _, args := range [][]string{{"inspect", container}, {"logs", container}} {
			out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
			if err != nil {
				s.t.Fatalf("docker %s: %v\n%s", args[0], err, out)
			}
			for _, needle := range []string{secret, "lsj-", "lsp-", "API_KEY"} {
				if bytes.Contains(out, []byte(needle)) {
					s.t.Errorf("docker %s shows %q", args[0], needle)
				}
			}
		}
		return
	}
}

func searchFiles(t *testing.T, dir, needle string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil //nolint:nilerr // files come and go while the server runs
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(needle)) {
			t.Errorf("%s holds %q", path, needle)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
