package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/cachestore"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/server"
	"github.com/longshore-run/longshore/internal/store"
	"github.com/longshore-run/longshore/internal/telemetry"
)

// plane is a control plane that is ready to answer.
type plane struct {
	settings
	log      *zap.Logger
	registry *prometheus.Registry
	db       *store.DB
	bucket   blob.Bucket       // nil when no dependency cache is kept
	entries  *cachestore.Store // and so is this
	control  *control.Service
	server   *server.Server
	listener net.Listener

	background sync.WaitGroup
	stop       context.CancelCauseFunc // of what runs in the background
}

// open opens everything, and makes what is missing on a first start. The caller
// closes the plane, after a success only.
func open(ctx context.Context, s settings, stdout, stderr io.Writer) (_ *plane, err error) {
	log, err := telemetry.NewLogger(stderr, s.logFormat, s.logLevel)
	if err != nil {
		return nil, err
	}
	p := &plane{settings: s, log: log, registry: telemetry.NewRegistry("server", version)}
	defer func() {
		if err != nil {
			p.close()
			err = &failure{err}
		}
	}()
	// The port first: who typed the command twice should hear of that, and not
	// of a lock.
	if p.listener, err = listen(ctx, s.listen); err != nil {
		return nil, err
	}
	sealer, err := p.openData(ctx)
	if err != nil {
		return nil, err
	}
	if p.publicURL == "" {
		p.publicURL = p.localURL()
	}
	if err := p.openCache(ctx); err != nil {
		return nil, err
	}
	var cache control.Cache
	var blobs http.Handler
	if p.entries != nil {
		cache, blobs = p.entries, p.bucket.Handler()
	}
	p.control = control.New(control.Options{
		Store: p.db, Sealer: sealer, Cache: cache, Log: log, Registerer: p.registry,
		PublicURL: p.publicURL, Organization: s.organization, BackendURL: s.backendURL,
		DefaultImage: s.defaultImage, HeartbeatTimeout: s.heartbeat, ClaimTimeout: s.claim,
	})
	if err := p.firstStart(ctx, stdout); err != nil {
		return nil, err
	}
	beside := ""
	if program, err := os.Executable(); err == nil {
		beside = filepath.Dir(program)
	}
	p.server = server.New(server.Options{
		Service: p.control, Executors: server.NewExecutors(s.executorDir, beside), Blobs: blobs, Ready: p.db.Ready,
		Log: log, Registerer: p.registry, Gatherer: p.registry,
	})
	background, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	p.stop = stop
	p.background.Go(func() {
		if err := p.control.Run(background); err != nil {
			log.Error("control plane", zap.Error(err))
		}
	})
	if p.entries != nil {
		p.background.Go(func() { p.entries.Run(background) })
	}
	return p, nil
}

// openData opens what is in the data directory.
func (p *plane) openData(ctx context.Context) (control.Sealer, error) {
	path := filepath.Join(p.dataDir, "longshore.db")
	key, err := secretsKey(p.dataDir, path)
	if err != nil {
		return nil, err
	}
	if p.db, err = store.Open(ctx, path, time.Now); err != nil {
		return nil, err
	}
	return control.NewSealer(key)
}

// close lets go of everything, in reverse order.
func (p *plane) close() {
	if p.stop != nil {
		p.stop(errors.New("the server has ended"))
		p.background.Wait()
	}
	if p.listener != nil {
		p.listener.Close()
	}
	if p.bucket != nil {
		if err := p.bucket.Close(); err != nil {
			p.log.Error("close bucket", zap.Error(err))
		}
	}
	if p.db != nil {
		if err := p.db.Close(); err != nil {
			p.log.Error("close database", zap.Error(err))
		}
	}
}

// localURL is where this host reaches the server.
func (p *plane) localURL() string {
	host, port, err := net.SplitHostPort(p.listener.Addr().String())
	if err != nil {
		return "http://" + p.listener.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is taken: stop what listens there, or choose another address with --listen (port 0 picks a free one)", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s may not be opened by this user: choose a port above 1023 with --listen", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s is no address of this host: choose one with --listen, such as 127.0.0.1:8480 or :8480", address)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w: choose another address with --listen", address, err)
	}
	return l, nil
}
