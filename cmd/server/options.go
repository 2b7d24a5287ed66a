package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/telemetry"
)

// environmentPrefix starts the environment variable of every flag:
// --data-dir is LONGSHORE_SERVER_DATA_DIR.
const environmentPrefix = "LONGSHORE_SERVER_"

// options are what serve and dev share.
type options struct {
	listen, publicURL         string
	dataDir, tokenFile        string
	organization              string
	executorDir               string
	backendURL, defaultImage  string
	heartbeatTimeout, stopFor time.Duration
	logLevel, logFormat       string
}

func (o *options) addFlags(fs *pflag.FlagSet, dataDir, logFormat string) {
	fs.SortFlags = false
	fs.StringVar(&o.listen, "listen", "127.0.0.1:8480", "Address to listen on.")
	fs.StringVar(&o.publicURL, "public-url", "", "Base URL at which users, agents and jobs reach this server (default http:// and the address of --listen).")
	fs.StringVar(&o.dataDir, "data-dir", dataDir, "Directory of the database and the key of its secrets.")
	fs.StringVar(&o.tokenFile, "token-file", "", "File for the first user's token, written with mode 0600 on the first start (default: printed once).")
	fs.StringVar(&o.organization, "organization", "default", "Name of the one organisation.")
	fs.StringVar(&o.executorDir, "executor-dir", "", "Directory of the executors that jobs download (default: the directory of this program).")
	fs.StringVar(&o.backendURL, "backend-url", "", "Pulumi backend of jobs that name none, such as s3://bucket or https://api.pulumi.com (default: the public URL).")
	fs.StringVar(&o.defaultImage, "default-image", control.DefaultImage, "Image of jobs that name none.")
	fs.DurationVar(&o.heartbeatTimeout, "heartbeat-timeout", control.DefaultHeartbeatTimeout, "Silence after which a job counts as lost.")
	fs.DurationVar(&o.stopFor, "stop-timeout", 20*time.Second, "How long requests in flight may take to finish when the server stops.")
	fs.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error.")
	fs.StringVar(&o.logFormat, "log-format", logFormat, "json or console.")
}

// fromEnvironment fills in every flag that was not typed from its environment
// variable. Every mistake is reported, each with where it was made.
func fromEnvironment(fs *pflag.FlagSet, environ []string) error {
	values := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		name := environmentPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := values[name]
		if f.Changed || value == "" || f.Name == "help" {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

// check reports every mistake at once.
func (o *options) check() error {
	var errs []error
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen %q: want HOST:PORT, such as 127.0.0.1:8480", o.listen))
	}
	if o.publicURL == "" {
		o.publicURL = "http://" + o.listen
	}
	o.publicURL = strings.TrimSuffix(strings.TrimRight(o.publicURL, "/"), "/api")
	if u, err := url.Parse(o.publicURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, fmt.Errorf("--public-url %q: want http:// or https:// and a host", o.publicURL))
	}
	if o.dataDir == "" {
		errs = append(errs, errors.New("--data-dir: missing, name the directory of the database"))
	}
	if o.heartbeatTimeout < time.Second {
		errs = append(errs, fmt.Errorf("--heartbeat-timeout %s: want at least 1s; executors send a heartbeat every 30s", o.heartbeatTimeout))
	}
	if o.stopFor < 0 {
		errs = append(errs, fmt.Errorf("--stop-timeout %s: must not be negative", o.stopFor))
	}
	if _, err := telemetry.NewLogger(discard{}, o.logFormat, o.logLevel); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// discard is where a logger writes that is made only to check its options.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
