package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker/docker/api/types/network"
)

// HostAddress returns the IP address by which containers of jobs reach this host:
// the gateway of their network. The error says why there is none.
func (b *Backend) HostAddress(ctx context.Context) (string, error) {
	if !strings.HasPrefix(b.client.DaemonHost(), "unix://") {
		return "", errors.New("the Docker engine may be on another machine")
	}
	name := b.config.Network
	switch name {
	case "host":
		return "127.0.0.1", nil
	case "none":
		return "", errors.New("containers of jobs have no network (docker_network)")
	case "", "default":
		name = "bridge"
	}
	call, cancel := b.call(ctx)
	defer cancel()
	found, err := b.client.NetworkInspect(call, name, network.InspectOptions{})
	if err != nil {
		return "", fmt.Errorf("look for the gateway of network %s: %w", name, err)
	}
	for _, config := range found.IPAM.Config {
		if ip, err := netip.ParseAddr(config.Gateway); err == nil && ip.Is4() {
			return ip.String(), nil
		}
	}
	return "", fmt.Errorf("network %s has no gateway: choose another with docker_network", name)
}
