package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/backend/fake"
)

// useCache gets an entry, or makes it when there is none, as a job does.
func useCache(c api.JobCache, key string) (found string, err error) {
	quick := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	send := func(method, url, body string) (int, []byte, error) {
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			return 0, nil, err
		}
		if strings.HasSuffix(url, "/cache/url") {
			req.Header.Set("Authorization", "token "+c.Token)
		}
		resp, err := quick.Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return resp.StatusCode, text, err
	}
	link := func(method string) (u api.CacheURLResponse, err error) {
		code, text, err := send("POST", c.URL+"/api/stacks/"+c.Stack+"/deployments/cache/url", fmt.Sprintf(`{"method":%q,"key":%q,"prefix":"npm-"}`, method, key))
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s", code, text)
		}
		if err == nil {
			err = json.Unmarshal(text, &u)
		}
		return u, err
	}
	u, err := link("GET")
	if err != nil {
		return "", err
	}
	if code, text, err := send("GET", u.URL, ""); err != nil || code == http.StatusOK {
		return string(text), err
	}
	if u, err = link("PUT"); err != nil {
		return "", err
	}
	_, _, err = send("PUT", u.URL, "made by "+key)
	return "nothing", err
}

func TestCacheOfTheAgent(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cache agent.CacheConfig
		want  []string // what the two jobs find, one after the other
	}{
		"agent":   {agent.CacheConfig{Backend: agent.CacheAgent}, []string{"nothing", "made by npm-a"}},
		"off":     {agent.CacheConfig{Backend: agent.CacheOff}, []string{"off: it is switched off on this agent (cache.backend)", "off: it is switched off on this agent (cache.backend)"}},
		"service": {agent.CacheConfig{}, []string{"that of the service", "that of the service"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			for i, id := range []string{"a", "b"} { // each with an agent of its own, as after a restart
				s := newService(t, id)
				c := config(t, s, "lsp-1")
				c.WorkingDirectory, c.Cache = dir, tc.cache
				found := make(chan string, 1)
				c.Backend = fake.New(fake.Script{Executor: func(ctx context.Context, job fake.Job) backend.Exit {
					switch j := job.File.Cache; {
					case j == nil:
						found <- "that of the service"
					case j.Off != "":
						found <- "off: " + j.Off
					default:
						text, err := useCache(*j, "npm-"+id)
						if err != nil {
							text = err.Error()
						}
						found <- text
					}
					return plays(ctx, job)
				}})
				reg := prometheus.NewRegistry()
				a, err := agent.New(c, agent.Deps{Registerer: reg})
				if err != nil {
					t.Fatal(err)
				}
				drain, done := make(chan struct{}), make(chan error, 1)
				go func() { done <- a.Run(t.Context(), drain) }()
				if got := <-found; got != tc.want[i] {
					t.Errorf("job %s finds %q, want %q", id, got, tc.want[i])
				}
				<-s.ended
				close(drain)
				if err := <-done; err != nil {
					t.Errorf("Run() = %v", err)
				}
			}
			if tc.cache.Backend != agent.CacheAgent {
				return
			}
			for _, file := range []string{"cache.key", "cache.port"} {
				if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, want a file of mode 0600", file, err)
				}
			}
		})
	}
}

func TestBadCacheConfigs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"file://x/y": "set cache.url to another", "key": "cache.key has 3 bytes instead of 32"} {
		s := newService(t)
		c := config(t, s, "lsp-1")
		c.Cache = agent.CacheConfig{Backend: agent.CacheAgent, URL: name}
		if name == "key" {
			c.Cache.URL = ""
			if err := os.MkdirAll(c.WorkingDirectory, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(c.WorkingDirectory, "cache.key"), bytes.Repeat([]byte("k"), 3), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := agent.New(c, agent.Deps{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
