package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Listen opens the port of a telemetry server. host is empty for every address
// of the machine; port 0 picks a free one. Its error says what to do.
func Listen(ctx context.Context, host string, port int) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d is taken: stop what uses it, or choose another with --http-server-port (0 picks a free one)", port)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("port %d may not be opened by this user: choose one above 1023 with --http-server-port", port)
	case err != nil:
		return nil, fmt.Errorf("open port %d: %w", port, err)
	}
	return listener, nil
}

// Serve answers on listener until ctx ends, and closes it.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	var served error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		served = server.Serve(listener)
	}()
	select {
	case <-ended:
		return fmt.Errorf("serve telemetry: %w", served)
	case <-ctx.Done():
	}
	// The answers are short; nobody is kept waiting for a scrape.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		_ = server.Close()
	}
	<-ended
	return nil
}

// Handler answers GET on
//
//	/healthz  200 or 503, {"status","currentTime","lastActivity"}: restart me when 503
//	/readyz   200 or 503, {"status","reasons"}: send me no work when 503; notes are among the reasons
//	/metrics  the registry, in the text format of Prometheus
func Handler(health *Health, gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		status, code := "healthy", http.StatusOK
		if health.Healthy() != nil {
			status, code = "unhealthy", http.StatusServiceUnavailable
		}
		answer(w, code, struct {
			Status       string    `json:"status"`
			CurrentTime  time.Time `json:"currentTime"`
			LastActivity time.Time `json:"lastActivity"`
		}{status, time.Now().UTC(), health.LastActivity().UTC()})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status, code, reasons := "ready", http.StatusOK, health.Reasons()
		if len(reasons) > 0 {
			status, code = "not ready", http.StatusServiceUnavailable
		}
		answer(w, code, struct {
			Status  string   `json:"status"`
			Reasons []string `json:"reasons"`
		}{status, append(reasons, health.Notes()...)})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	return mux
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}
