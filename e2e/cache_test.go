package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend/docker"
	"github.com/longshore-run/longshore/internal/testkit"
)

// askCache asks the agent's cache for a URL, as any program of a job could.
const askCache = `member() { sed 's/.*"'$1'":"\([^"]*\)".*/\1/' "$LONGSHORE_CACHE_FILE"; }
ask() { busybox wget -q -O - --header "Authorization: token $(member token)" --post-data "$2" "$(member url)/api/stacks/$1/deployments/cache/url"; }
`

var linkInLog = regexp.MustCompile(`"url":"([^"]+)"`)

// TestCacheOfTheAgent: a job reaches the cache that its agent serves, a process
// on the loopback address and a container through the gateway of its network. The
// next job of the stack finds what was saved, and no job sees another stack's.
// With a bucket of S3 the URLs are those of S3.
func TestCacheOfTheAgent(t *testing.T) {
	t.Parallel()
	t.Run("process", func(t *testing.T) {
		t.Parallel()
		testkit.Need(t, "busybox")
		cacheOfTheAgent(t, newSite(t), processTarget(), "http://127.0.0.1:")
	})
	t.Run("S3", func(t *testing.T) {
		t.Parallel()
		testkit.Need(t, "busybox")
		s3 := testkit.StartS3(t)
		on := processTarget()
		for name, value := range s3.Environ() {
			on.agentEnv = append(on.agentEnv, name+"="+value)
		}
		bucket, err := url.Parse(s3.URL)
		if err != nil {
			t.Fatal(err)
		}
		cacheOfTheAgent(t, newSite(t), on, bucket.Query().Get("endpoint")+"/longshore/", "--cache-url", s3.URL)
	})
	t.Run("docker", func(t *testing.T) {
		t.Parallel()
		on := dockerTarget(t)
		network := testkit.DockerNetwork(t)
		gateway := gatewayOf(t, network)
		on.agentArgs = []string{"--deploy-target", "docker", "--docker-network", network, "--pull-policy", "never"}
		cacheOfTheAgent(t, newSiteAt(t, freePort(t, gateway)), on, "http://"+gateway+":")
	})
}

func cacheOfTheAgent(t *testing.T, s *site, on target, urls string, args ...string) {
	s.agent(on, append([]string{"--cache-backend", "agent"}, args...)...)
	stack := stackOf(t)
	job := func(body string) string {
		t.Helper()
		d, log := s.deploy(stack, request(t, on, func(r object) {
			operation(r)["preRunCommands"] = []string{
				program,
				askCache + fmt.Sprintf("ask %s '%s'; ask default/other/dev '%s' || echo refused", stack, body, body),
			}
		}))
		if d.Status != api.StatusSucceeded || !strings.Contains(log, "\nrefused\n") {
			t.Fatalf("the job has %s\n%s", d.Status, log)
		}
		link := linkInLog.FindStringSubmatch(log)
		if link == nil || !strings.HasPrefix(link[1], urls) {
			t.Fatalf("the URL is %q, want one of %s\n%s", link, urls, log)
		}
		return strings.ReplaceAll(link[1], `\u0026`, "&")
	}
	put := job(`{"method":"PUT","key":"npm-1"}`)
	if code, text := fetch(t, http.MethodPut, put, "content"); code != http.StatusOK {
		t.Fatalf("PUT = %d %s", code, text)
	}
	get := job(`{"method":"GET","key":"npm-2","prefix":"npm-"}`)
	if code, text := fetch(t, http.MethodGet, get, ""); code != http.StatusOK || text != "content" {
		t.Errorf("the next job gets %d %q", code, text)
	}
}

func fetch(t *testing.T, method, link, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, link, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// gatewayOf is where containers of a network reach this host.
func gatewayOf(t *testing.T, network string) string {
	t.Helper()
	b, err := docker.New(docker.Config{Network: network, ExecutorSource: func(context.Context, string) (string, error) { return "", errors.New("not needed") }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	address, err := b.HostAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// freePort returns an address of this host with a port that is free.
func freePort(t *testing.T, host string) string {
	t.Helper()
	address, err := rig.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, port)
}
