package testkit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// DockerNetwork makes a bridge network of the Docker engine for one test, and
// removes it at the end. It returns its name. Like Need it speaks the engine's
// socket itself.
func DockerNetwork(t testing.TB) string {
	t.Helper()
	Need(t, "docker")
	var b [6]byte
	rand.Read(b[:]) // never fails, by its documentation
	name := "longshore-test-" + hex.EncodeToString(b[:])
	if err := askEngine(t.Context(), http.MethodPost, "/networks/create", fmt.Sprintf(`{"Name":%q,"Driver":"bridge"}`, name)); err != nil {
		t.Fatalf("make a network: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := askEngine(ctx, http.MethodDelete, "/networks/"+name, ""); err != nil {
			t.Errorf("remove network %s: %v", name, err)
		}
	})
	return name
}

func askEngine(ctx context.Context, method, path, body string) error {
	network, address := "unix", "/var/run/docker.sock"
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		network, address, _ = strings.Cut(host, "://")
	}
	engine := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := engine.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // for the message alone
		return fmt.Errorf("the engine answered %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
