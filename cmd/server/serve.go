package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/lifecycle"
	"github.com/longshore-run/longshore/internal/server"
	"github.com/longshore-run/longshore/internal/store"
	"github.com/longshore-run/longshore/internal/telemetry"
)

func newServeCommand(environ []string, stdout, stderr io.Writer) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API until told to stop",
		Long: `serve answers the Deployments API and the agents' side of it.

Each flag has an environment variable: --data-dir is LONGSHORE_SERVER_DATA_DIR.
The flag wins.

The first start makes a user "admin" and prints its token once, or writes it to
--token-file. Keep the data directory: it holds the database and, in secrets.key,
the key without which the stored secrets cannot be read.

Signals: the first SIGTERM or SIGINT lets requests in flight finish, and answers
held polls at once; the second cuts them.`,
		Example: "  longshore-server serve --data-dir /var/lib/longshore --public-url https://longshore.example.com",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(fromEnvironment(cmd.Flags(), environ), o.check()); err != nil {
				return err
			}
			ctx, drain, done := lifecycle.Stops(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer done()
			p, err := newPlane(ctx, o, stdout, stderr)
			if err != nil {
				return &failure{err}
			}
			if err := errors.Join(p.serve(ctx, drain), p.close()); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
	o.addFlags(cmd.Flags(), "longshore-data", telemetry.FormatJSON)
	return cmd
}

// plane is a control plane with its database, listening but not serving yet.
type plane struct {
	options  options
	log      *zap.Logger
	db       *store.DB
	service  *control.Service
	server   *server.Server
	listener net.Listener
}

func newPlane(ctx context.Context, o options, stdout, stderr io.Writer) (_ *plane, err error) {
	p := &plane{options: o}
	if p.log, err = telemetry.NewLogger(stderr, o.logFormat, o.logLevel); err != nil {
		return nil, err
	}
	// The port first: who typed the command twice should hear of that, and not
	// of a lock.
	p.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another program: stop it, or choose another address with --listen", o.listen)
	} else if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.listen, err)
	}
	if p.db, err = store.Open(ctx, filepath.Join(o.dataDir, "longshore.db"), time.Now); err != nil {
		return nil, errors.Join(err, p.listener.Close())
	}
	if err := p.assemble(ctx, stdout); err != nil {
		return nil, errors.Join(err, p.listener.Close(), p.db.Close())
	}
	return p, nil
}

func (p *plane) assemble(ctx context.Context, stdout io.Writer) error {
	o := p.options
	key, err := secretsKey(filepath.Join(o.dataDir, "secrets.key"))
	if err != nil {
		return err
	}
	sealer, err := control.NewSealer(key)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry("server", version)
	p.service = control.New(control.Options{
		Store: p.db, Sealer: sealer, Log: p.log, Registerer: registry,
		PublicURL: o.publicURL, Organization: o.organization, BackendURL: o.backendURL,
		DefaultImage: o.defaultImage, HeartbeatTimeout: o.heartbeatTimeout,
	})
	if err := p.bootstrap(ctx, stdout); err != nil {
		return err
	}
	p.server = server.New(server.Options{
		Service: p.service, Executors: server.NewExecutors(o.executorDir, ownDirectory()), Log: p.log,
		Ready:      func(ctx context.Context) error { return p.db.View(ctx, func(control.Tx) error { return nil }) },
		Registerer: registry, Gatherer: registry,
	})
	return nil
}

// bootstrap makes the first user and hands its token over, once.
func (p *plane) bootstrap(ctx context.Context, stdout io.Writer) error {
	token, err := p.service.Bootstrap(ctx)
	if err != nil || token == "" {
		return err
	}
	if p.options.tokenFile != "" {
		p.log.Info("the first user's token is written", zap.String("file", p.options.tokenFile))
		return writeSecret(p.options.tokenFile, []byte(token+"\n"))
	}
	_, err = fmt.Fprintf(stdout, "The token of user admin, shown this once: %s\n", token)
	return err
}

// serve answers requests until drain is closed or ctx ends.
func (p *plane) serve(ctx context.Context, drain <-chan struct{}) error {
	background, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	work.Go(func() { _ = p.service.Run(background) }) // returns nil, by its contract
	defer work.Wait()
	defer stop(nil)
	p.log.Info("server started", zap.String("version", version), zap.String("listen", p.listener.Addr().String()),
		zap.String("public_url", p.options.publicURL), zap.String("data_dir", p.options.dataDir))
	err := p.server.Serve(ctx, p.listener, drain, p.options.stopFor)
	p.log.Info("server ended", zap.Error(err))
	return err
}

func (p *plane) close() error { return p.db.Close() }

// ownDirectory is where this program is, and the executor beside it.
func ownDirectory() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	return filepath.Dir(path)
}
