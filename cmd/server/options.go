package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/backend/docker"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/telemetry"
)

// targetAuto lets dev choose where jobs run.
const targetAuto = "auto"

// options are the flags as they were typed: texts, so that every mistake in
// them can be told at once.
type options struct {
	listen, dataDir, publicURL, organization, tokenFile string
	executorDir, backendURL, defaultImage               string
	heartbeatTimeout, claimTimeout, stopTimeout         string
	logLevel, logFormat                                 string

	cacheURL, cacheScope, cacheMaxEntry, cacheMaxProject, cacheUnread string

	deployTarget, concurrency, dockerNetwork, pullPolicy string // of dev
}

// settings are the options, understood and checked.
type settings struct {
	options
	heartbeat, claim, stopFor time.Duration
	slots                     int
	cache                     cacheSettings
	environ                   []string
}

func (o *options) addServerFlags(fs *pflag.FlagSet, dataDir, logFormat string) {
	fs.SortFlags = false
	fs.StringVar(&o.listen, "listen", "127.0.0.1:8480", "`ADDRESS` to answer on; port 0 picks a free one")
	fs.StringVar(&o.dataDir, "data-dir", dataDir, "`DIRECTORY` of the database and the key of its secrets")
	fs.StringVar(&o.publicURL, "public-url", "", "`URL` at which users, agents and jobs reach this server (default http:// and the address of --listen)")
	fs.StringVar(&o.organization, "organization", "default", "`NAME` of the one organization")
	fs.StringVar(&o.tokenFile, "token-file", "", "`FILE` to write the first user's token to, for its owner alone to read")
	fs.StringVar(&o.heartbeatTimeout, "heartbeat-timeout", "10m", "`DURATION` of silence after which a job counts as lost")
	fs.StringVar(&o.claimTimeout, "claim-timeout", "30s", "`DURATION` after which a claim that no runner took up is taken back")
	fs.StringVar(&o.executorDir, "executor-dir", "", "`DIRECTORY` with longshore-executor-linux-amd64 and -arm64 for jobs to download (default beside this program)")
	fs.StringVar(&o.backendURL, "backend-url", "", "`URL` of the Pulumi backend that jobs keep state in, such as s3://bucket (default the public URL)")
	fs.StringVar(&o.defaultImage, "default-image", control.DefaultImage, "`IMAGE` of jobs that name none")
	fs.StringVar(&o.cacheURL, "cache-url", "", "`URL` of the bucket of the dependency cache: file:///folder, s3://bucket, gs://bucket, azblob://container, or off (default the folder cache in --data-dir)")
	fs.StringVar(&o.cacheScope, "cache-scope", scopeStack, "`SCOPE` of an entry of it: stack, or project for all stacks of a project")
	fs.StringVar(&o.cacheMaxEntry, "cache-max-entry", "5GiB", "`SIZE` of the largest entry that is kept")
	fs.StringVar(&o.cacheMaxProject, "cache-max-project", "20GiB", "`SIZE` of all entries of a project, above which those go that were used the longest ago")
	fs.StringVar(&o.cacheUnread, "cache-unread", "720h", "`DURATION` after which an entry goes that nobody has used")
	fs.StringVar(&o.stopTimeout, "stop-timeout", "20s", "`DURATION` that requests have to finish when the server stops")
	fs.StringVar(&o.logLevel, "log-level", "info", "`LEVEL` of this program's own log: debug, info, warn or error")
	fs.StringVar(&o.logFormat, "log-format", logFormat, "`FORMAT` of it: json or console")
}

func (o *options) addDevFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.deployTarget, "deploy-target", targetAuto, "`TARGET` that jobs run on: docker, process, or auto for docker when an engine answers")
	fs.StringVar(&o.concurrency, "concurrency", "2", "`NUMBER` of jobs that may run at the same time")
	fs.StringVar(&o.dockerNetwork, "docker-network", "", "`NETWORK` that containers of jobs join (default host while --public-url is an address of this host)")
	fs.StringVar(&o.pullPolicy, "pull-policy", string(docker.PullMissing), "`WHEN` images of jobs are pulled: always, missing or never")
}

// environment returns the name of the variable that stands for a flag.
func environment(flag string) string {
	return "LONGSHORE_SERVER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

var organizationName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}$`)

// settings fills what was not typed from the environment and checks everything.
// Its error has one line for each mistake and says where it was made.
func (o *options) settings(fs *pflag.FlagSet, environ []string) (settings, error) {
	var errs []error
	given, source := map[string]string{}, map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		given[name] = value
	}
	fs.VisitAll(func(f *pflag.Flag) {
		source[f.Name] = "--" + f.Name
		value := given[environment(f.Name)]
		if f.Changed || value == "" || f.Name == "help" {
			return
		}
		source[f.Name] = environment(f.Name)
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", environment(f.Name), err))
		}
	})
	wrong := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", source[flag], fmt.Sprintf(format, args...)))
	}
	s := settings{options: *o, environ: environ}
	s.publicURL = strings.TrimSuffix(strings.TrimRight(s.publicURL, "/"), "/api")
	o.checkAddresses(wrong)
	if o.dataDir == "" {
		wrong("data-dir", "missing: name a directory for the database and the key of its secrets")
	}
	if !organizationName.MatchString(o.organization) || o.organization == "." || o.organization == ".." {
		wrong("organization", "%q is no name: use 1 to 100 letters, digits, dots, hyphens and underscores", o.organization)
	}
	s.heartbeat = duration(o.heartbeatTimeout, "heartbeat-timeout", wrong)
	s.claim = duration(o.claimTimeout, "claim-timeout", wrong)
	s.stopFor = duration(o.stopTimeout, "stop-timeout", wrong)
	s.cache = o.checkCache(wrong)
	if _, err := telemetry.NewLogger(io.Discard, telemetry.FormatJSON, o.logLevel); err != nil {
		wrong("log-level", "%v", err)
	}
	if _, err := telemetry.NewLogger(io.Discard, o.logFormat, "info"); err != nil {
		wrong("log-format", "%v", err)
	}
	if fs.Lookup("deploy-target") != nil {
		s.slots = o.checkDev(wrong)
	}
	return s, errors.Join(errs...)
}

func (o *options) checkAddresses(wrong func(flag, format string, args ...any)) {
	_, port, err := net.SplitHostPort(o.listen)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n > 65535 {
		wrong("listen", "%q is no address: want HOST:PORT, such as 127.0.0.1:8480 or :8480", o.listen)
	}
	if u, err := url.Parse(o.publicURL); o.publicURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "") {
		wrong("public-url", "%q is no base URL: want http:// or https:// and a host", o.publicURL)
	}
	if u, err := url.Parse(o.backendURL); o.backendURL != "" && (err != nil || u.Scheme == "") {
		wrong("backend-url", "not a URL: want one that \"pulumi login\" takes, such as s3://bucket or file:///state")
	}
}

func (o *options) checkDev(wrong func(flag, format string, args ...any)) (slots int) {
	if !slices.Contains([]string{targetAuto, agent.TargetDocker, agent.TargetProcess}, o.deployTarget) {
		wrong("deploy-target", "%q is no target: want docker, process or auto", o.deployTarget)
	}
	slots, err := strconv.Atoi(o.concurrency)
	if err != nil || slots < 1 || slots > 1000 {
		wrong("concurrency", "%q: want a number of jobs from 1 to 1000", o.concurrency)
	}
	if !slices.Contains([]docker.PullPolicy{docker.PullAlways, docker.PullMissing, docker.PullNever}, docker.PullPolicy(o.pullPolicy)) {
		wrong("pull-policy", "%q is no policy: want always, missing or never", o.pullPolicy)
	}
	return slots
}

func duration(text, flag string, wrong func(flag, format string, args ...any)) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		wrong(flag, "%q: want a duration such as 30s or 10m", text)
	}
	return d
}
