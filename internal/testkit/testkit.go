// Package testkit says which real parts a test needs. A test that needs a part
// which is not there skips and says so, unless LONGSHORE_REQUIRE names the
// part: then it fails, so that a continuous integration run cannot pass by
// testing nothing. Only tests import it.
package testkit

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// Need makes sure that part is there. A part is "docker" (an engine that
// answers), "root" (user id 0), "netns" (network namespaces that this user may
// make with iproute2), or the name of a program on the PATH, such as "git",
// "sshd", "npm" or "bash".
func Need(t testing.TB, part string) {
	t.Helper()
	err := find(part)
	if err == nil {
		return
	}
	if required(part) {
		t.Fatalf("%s is required by LONGSHORE_REQUIRE and missing: %v", part, err)
	}
	t.Skipf("needs %s: %v", part, err)
}

// Path returns the path of a program that Need found.
func Path(t testing.TB, program string) string {
	t.Helper()
	Need(t, program)
	path, err := lookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func required(part string) bool {
	return slices.Contains(strings.Split(os.Getenv("LONGSHORE_REQUIRE"), ","), part)
}

func find(part string) error {
	switch part {
	case "docker":
		return dockerAnswers()
	case "root":
		if os.Geteuid() != 0 {
			return fmt.Errorf("running as user %d", os.Geteuid())
		}
		return nil
	case "netns":
		return namespaces()
	}
	_, err := lookPath(part)
	return err
}

// namespaces makes a network namespace and removes it.
func namespaces() error {
	ip, err := lookPath("ip")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	name := "longshore-probe-" + strings.ToLower(rand.Text()) // tests look at the same time
	for _, verb := range []string{"add", "delete"} {
		if out, err := exec.CommandContext(ctx, ip, "netns", verb, name).CombinedOutput(); err != nil {
			return fmt.Errorf("ip netns %s: %w: %s", verb, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// lookPath looks where daemons are installed, too: Debian keeps sshd in
// /usr/sbin, which is not on every PATH.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if path, lookErr := exec.LookPath(dir + program); lookErr == nil {
			return path, nil
		}
	}
	return "", err
}

// dockerAnswers asks the engine's socket for a ping. It speaks the socket
// itself, so that packages which must not know of Docker can import testkit.
func dockerAnswers() error {
	network, address := "unix", "/var/run/docker.sock"
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		var ok bool
		if network, address, ok = strings.Cut(host, "://"); !ok {
			return fmt.Errorf("DOCKER_HOST %q is no URL", host)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprint(conn, "GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"); err != nil {
		return err
	}
	answer := make([]byte, 12)
	if _, err := conn.Read(answer); err != nil {
		return err
	}
	if !strings.Contains(string(answer), " 200") {
		return fmt.Errorf("the engine answered %q", answer)
	}
	return nil
}
