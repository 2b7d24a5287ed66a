package docker_test

import (
	"net"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/backend/docker"
	"github.com/longshore-run/longshore/internal/testkit"
)

func TestHostAddress(t *testing.T) {
	t.Parallel()
	address := func(c docker.Config) (string, error) {
		t.Helper()
		c.ExecutorSource = noExecutor
		b, err := docker.New(c)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		return b.HostAddress(t.Context())
	}
	if got, err := address(docker.Config{Network: "host"}); got != "127.0.0.1" || err != nil {
		t.Errorf("on the network of the host: %q, %v", got, err)
	}
	for want, c := range map[string]docker.Config{
		"another machine": {Host: "tcp://192.0.2.1:2376"},
		"no network":      {Network: "none"},
	} {
		if got, err := address(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("address %q, %v, want %q", got, err, want)
		}
	}
	testkit.Need(t, "docker")
	if got, err := address(docker.Config{Network: "longshore-not-there"}); err == nil || !strings.Contains(err.Error(), "longshore-not-there") {
		t.Errorf("of a network that is not there: %q, %v", got, err)
	}
	got, err := address(docker.Config{Network: testkit.DockerNetwork(t)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(got, "0"))
	if err != nil {
		t.Fatalf("the gateway %s is no address of this host: %v", got, err)
	}
	l.Close()
}
