package config_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/longshore-run/longshore/internal/config"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md")

// load reads a configuration from a file's text, an environment and flags.
// Whatever a test does not speak of is as in a working setup.
func load(t *testing.T, file string, env, args []string) (config.Result, error) {
	t.Helper()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	config.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	in := config.Input{Flags: fs, Environ: append([]string{"HOME=/home/ship"}, env...)}
	if file != "" {
		in.Directories = []string{t.TempDir()}
		if err := os.WriteFile(filepath.Join(in.Directories[0], "longshore-agent.yaml"), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config.Load(in)
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := "token: t\npolling_interval: 1s\n"
	pulumi, ours := "PULUMI_AGENT_POLLING_INTERVAL=2s", "LONGSHORE_AGENT_POLLING_INTERVAL=3s"
	for name, tc := range map[string]struct {
		file string
		env  []string
		args []string
		want time.Duration
	}{
		"the default is there":             {"token: t", nil, nil, time.Minute},
		"the file beats the default":       {file, nil, nil, time.Second},
		"the environment beats the file":   {file, []string{pulumi}, nil, 2 * time.Second},
		"our variable beats the other":     {file, []string{pulumi, ours}, nil, 3 * time.Second},
		"a flag beats the environment":     {file, []string{pulumi, ours}, []string{"--polling-interval=4s"}, 4 * time.Second},
		"an empty variable counts as none": {file, []string{"LONGSHORE_AGENT_POLLING_INTERVAL="}, nil, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := load(t, tc.file, tc.env, tc.args)
			if err != nil {
				t.Fatal(err)
			}
			if got.Agent.PollingInterval != tc.want {
				t.Errorf("PollingInterval = %v, want %v", got.Agent.PollingInterval, tc.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	got, err := load(t, "", []string{"PULUMI_AGENT_TOKEN=t"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := got.Agent
	for what, ok := range map[string]bool{
		"service":     a.ServiceURL == "https://api.pulumi.com",
		"target":      a.DeployTarget == "docker",
		"pull":        a.PullPolicy == "always",
		"concurrency": a.Concurrency == runtime.NumCPU(),
		"status":      a.JobStatusLoopInterval == 30*time.Second,
		"timeout":     a.RequestTimeout == 30*time.Second && a.RequestRetryCount == 2,
		"breaker":     a.CircuitBreakerFailures == 2 && a.CircuitBreakerTimeout == 2*time.Minute,
		"port":        a.HTTPServerPort == 8080,
		"health":      a.HealthThreshold == 2*time.Minute,
		"directory":   filepath.IsAbs(a.WorkingDirectory),
	} {
		if !ok {
			t.Errorf("%s: not the documented default: %+v", what, a)
		}
	}
	if len(got.Warnings) != 0 {
		t.Errorf("Warnings = %q, want none", got.Warnings)
	}
}

func TestMistakesComeAllAtOnceWithTheirPlace(t *testing.T) {
	t.Parallel()
	_, err := load(t, "token: t\nrequest_timeout: soon\nsyslog: maybe\ncircuit_breaker_failures: [1]\nservice_url: api.pulumi.com\n",
		[]string{"LONGSHORE_AGENT_JOB_MEMORY=plenty", "PULUMI_AGENT_DEPLOY_TARGET=kubernetes"},
		[]string{"--concurrency=0", "--log-level=loud"})
	if err == nil {
		t.Fatal("Load() = nil, want seven mistakes")
	}
	lines := strings.Split(err.Error(), "\n")
	for _, want := range []string{
		`request_timeout: "soon" is no duration: want such as 30s, 5m or 1h30m (key request_timeout in `,
		`syslog: "maybe" is no true or false`,
		`circuit_breaker_failures: want one whole number (key`,
		`service_url: "api.pulumi.com" is no URL of a service: want such as https://api.pulumi.com (key service_url in `,
		`job_memory: "plenty" is no size: want such as 512MiB (environment variable LONGSHORE_AGENT_JOB_MEMORY)`,
		`deploy_target: kubernetes is not supported yet: use docker or process (environment variable PULUMI_AGENT_DEPLOY_TARGET)`,
		`concurrency: 0 is out of range: want 1 to 1000 (flag --concurrency)`,
		`log_level: "loud" is none: want debug, info, warn, error (flag --log-level)`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no line with %q", want)
		}
	}
	if len(lines) != 8 {
		t.Errorf("%d lines, want 8:\n%v", len(lines), err)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("lsp-filed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		file    string
		env     []string
		args    []string
		want    string
		wantErr string
	}{
		"none is a mistake":            {wantErr: "token: missing"},
		"none but an identity token":   {file: "oidc_token_file: /t", wantErr: "not supported yet"},
		"by flag":                      {args: []string{"--token=lsp-flag"}, want: "lsp-flag"},
		"by the old variable":          {env: []string{"PULUMI_AGENT_TOKEN=pul-1"}, want: "pul-1"},
		"from a file":                  {env: []string{"LONGSHORE_AGENT_TOKEN_FILE=" + path}, want: "lsp-filed"},
		"the stronger source wins":     {file: "token: weak", env: []string{"LONGSHORE_AGENT_TOKEN_FILE=" + path}, want: "lsp-filed"},
		"and so the other way round":   {file: "token_file: " + path, args: []string{"--token=strong"}, want: "strong"},
		"both in one place":            {file: "token: a\ntoken_file: " + path, wantErr: "not both"},
		"a token file that is missing": {args: []string{"--token-file=/nowhere"}, wantErr: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := load(t, tc.file, tc.env, tc.args)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("Load() = %v, want %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if token, err := got.Agent.PoolToken()(); token != tc.want || err != nil {
				t.Errorf("token = %q, %v, want %q", token, err, tc.want)
			}
		})
	}
}

func TestTokenFileMayBeReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	got, err := load(t, "", nil, []string{"--token-file", path})
	if err != nil {
		t.Fatal(err)
	}
	token := got.Agent.PoolToken()
	write("second\n")
	if text, err := token(); text != "second" || err != nil {
		t.Errorf("token = %q, %v, want the new one", text, err)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	got, err := load(t, "", nil, []string{"--token=lsp-hidden"})
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(got.Agent)
	if err != nil {
		t.Fatal(err)
	}
	for how, text := range map[string]string{
		"%v": fmt.Sprintf("%v", got.Agent), "%+v": fmt.Sprintf("%+v", got.Agent),
		"%#v": fmt.Sprintf("%#v", got.Agent), "%s": fmt.Sprint(got.Agent.Token), "JSON": string(asJSON),
	} {
		if strings.Contains(text, "lsp-hidden") || !strings.Contains(text, "[redacted]") {
			t.Errorf("%s shows the token, or no placeholder: %.200s", how, text)
		}
	}
	_, err = load(t, "token: {nested: lsp-hidden}", nil, nil)
	if err == nil || strings.Contains(err.Error(), "lsp-hidden") {
		t.Errorf("Load() = %v, want a mistake that does not quote the token", err)
	}
}

func TestTheOtherAgentsSampleLoadsUnchanged(t *testing.T) {
	t.Parallel()
	got, err := config.Load(config.Input{Directories: []string{"testdata"}, Environ: []string{"HOME=/home/ship"}})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(got.File) != "pulumi-workflow-agent.yaml" || got.Agent.ServiceURL != "https://api.pulumi.com" ||
		got.Agent.Token.Reveal() != "REPLACE_WITH_TOKEN" {
		t.Errorf("Load() = %+v", got)
	}
	if len(got.Warnings) != 2 {
		t.Errorf("Warnings = %q, want one for each key left over", got.Warnings)
	}
}

func TestEveryKeyOfTheOtherAgentIsAccepted(t *testing.T) {
	t.Parallel()
	got, err := load(t, `
token: pul-1
service_url: https://api.pulumi.com/
working_directory: /srv/agent
shared_volume_directory: /mnt/work
deploy_target: docker
single_run: true
pull_image: false
enabled_workflow_types: [deployment, insights_scan]
env_forward_allowlist: [AWS_REGION, HTTP_PROXY]
oidc_token_file: /var/run/token
organization_name: acme
runner_pool_id: pool-1
token_expiration: 2h
polling_interval: 90s
polling_interval_override: true
job_status_loop_interval: 10s
request_timeout: 20s
request_retry_count: 3
request_retry_wait: 1s
request_retry_max_wait: 1m
circuit_breaker_failures: 4
circuit_breaker_timeout: 5m
http_server_port: 9090
health_threshold: ""
syslog: true
ecs:
  cluster: main
  subnets: [a, b]
`, []string{"PULUMI_DEPLOY_OVERRIDE_IMAGE_REFERENCE=acme/pulumi:1", "PULUMI_AGENT_ECS_LAUNCH_TYPE=EC2", "DOCKER_HOST=tcp://d:2375"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := got.Agent
	for what, ok := range map[string]bool{
		"trailing slash": a.ServiceURL == "https://api.pulumi.com",
		"pull_image":     a.PullPolicy == "missing",
		"allow-list":     len(a.EnvForwardAllow) == 2 && a.EnvForwardAllow[1] == "HTTP_PROXY",
		"override":       a.OverrideImage == "acme/pulumi:1" && a.DockerHost == "tcp://d:2375",
		"intervals":      a.PollingInterval == 90*time.Second && a.PollingIntervalOverride && a.HealthThreshold == 3*time.Minute,
		"single_run":     a.SingleRun && a.HTTPServerPort == 9090 && a.RequestRetryCount == 3,
	} {
		if !ok {
			t.Errorf("%s: not as written: %+v", what, a)
		}
	}
	ignored := strings.Join(got.Warnings, "\n")
	for _, key := range []string{"enabled_workflow_types", "shared_volume_directory", "oidc_token_file", "organization_name", "token_expiration", "syslog", "ecs.cluster", "ecs.subnets", "ecs.launch_type"} {
		if strings.Count(ignored, key+" is ignored: ") != 1 {
			t.Errorf("no warning, or several, for %s:\n%s", key, ignored)
		}
	}
}

func TestUnknownKeysAreNamedWithTheNearestKnown(t *testing.T) {
	t.Parallel()
	got, err := load(t, "token: t\npoling_interval: 1s\nzzz: 1\n", []string{"LONGSHORE_AGENT_CONCURENCY=3"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(got.Warnings, "\n")
	for _, want := range []string{"is polling_interval meant?", "key zzz in ", "environment variable LONGSHORE_AGENT_CONCURENCY is unknown and ignored: is LONGSHORE_AGENT_CONCURRENCY meant?"} {
		if !strings.Contains(text, want) {
			t.Errorf("no warning with %q:\n%s", want, text)
		}
	}
}

func TestListsFromTheEnvironment(t *testing.T) {
	t.Parallel()
	got, err := load(t, "", []string{"PULUMI_AGENT_TOKEN=t", "PULUMI_AGENT_ENV_FORWARD_ALLOWLIST=A B,C"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l := got.Agent.EnvForwardAllow; strings.Join(l, "|") != "A|B|C" {
		t.Errorf("EnvForwardAllow = %q, want A, B and C", l)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	t.Run("a named file must be there", func(t *testing.T) {
		t.Parallel()
		if _, err := config.Load(config.Input{File: "/nowhere.yaml"}); err == nil {
			t.Error("Load() = nil, want an error")
		}
	})
	t.Run("a file that is no YAML says which", func(t *testing.T) {
		t.Parallel()
		if _, err := load(t, "token: [", nil, nil); err == nil || !strings.Contains(err.Error(), "longshore-agent.yaml") {
			t.Errorf("Load() = %v, want the file's name", err)
		}
	})
	t.Run("the first directory wins", func(t *testing.T) {
		t.Parallel()
		near, far := t.TempDir(), t.TempDir()
		for dir, name := range map[string]string{near: "pulumi-workflow-agent.yaml", far: "longshore-agent.yaml"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("token: t"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := config.Load(config.Input{Directories: []string{near, far}})
		if err != nil || filepath.Dir(got.File) != near {
			t.Errorf("Load() read %q, %v, want the file in %q", got.File, err, near)
		}
	})
}

func TestEveryOptionIsComplete(t *testing.T) {
	t.Parallel()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	config.AddFlags(fs)
	seen := map[string]string{}
	for _, o := range config.Options() {
		if o.Help == "" || !strings.HasSuffix(o.Help, ".") {
			t.Errorf("%s: help %q is no sentence", o.Key, o.Help)
		}
		if fs.Lookup(o.Flag()) == nil {
			t.Errorf("%s has no flag", o.Key)
		}
		for _, name := range append(o.EnvNames(), o.Flag()) {
			if other := seen[name]; other != "" {
				t.Errorf("%s and %s share %s", o.Key, other, name)
			}
			seen[name] = o.Key
		}
		if o.Secret() && o.Default != "" {
			t.Errorf("%s is a secret with a default", o.Key)
		}
	}
}

func TestDocumentationListsEveryOption(t *testing.T) {
	t.Parallel()
	const page = "../../docs/configuration.md"
	if *update {
		if err := os.WriteFile(page, []byte(config.Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != config.Markdown() {
		t.Errorf("%s differs from the options: run go test ./internal/config -update", page)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("token: t\necs: {cluster: x}\n")
	f.Add("ecs: 3\ntoken: [1]\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = config.Load(config.Input{File: path}) // must not panic
	})
}

func TestTheWorkingDirectoryIsFoundWithoutTheRest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "longshore-agent.yaml")
	if err := os.WriteFile(file, []byte("working_directory: /srv/agent\nconcurrency: none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		in   config.Input
		want string
	}{
		"from the file":        {config.Input{Directories: []string{dir}}, "/srv/agent"},
		"from the environment": {config.Input{File: file, Environ: []string{"LONGSHORE_AGENT_WORKING_DIRECTORY=/srv/other"}}, "/srv/other"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := config.WorkingDirectory(tc.in); err != nil || got != tc.want {
				t.Errorf("WorkingDirectory() = %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}
