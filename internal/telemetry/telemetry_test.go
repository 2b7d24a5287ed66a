package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, h http.Handler, path string) (int, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("GET %s: body %q: %v", path, w.Body, err)
	}
	return w.Code, body
}

func TestHealthIsTheAgeOfTheLastActivity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		health := telemetry.NewHealth(2 * time.Minute)
		h := telemetry.Handler(health, telemetry.NewRegistry("agent", "v1"))
		began := time.Now()
		time.Sleep(2 * time.Minute)
		code, body := get(t, h, "/healthz")
		if code != 200 || body["status"] != "healthy" {
			t.Errorf("at the threshold: %d %v, want 200 healthy", code, body)
		}
		if got, want := body["lastActivity"], began.UTC().Format(time.RFC3339Nano); got != want {
			t.Errorf("lastActivity = %v, want %v", got, want)
		}
		time.Sleep(time.Second)
		if code, body := get(t, h, "/healthz"); code != 503 || body["status"] != "unhealthy" {
			t.Errorf("past the threshold: %d %v, want 503 unhealthy", code, body)
		}
		health.Active()
		if code, _ := get(t, h, "/healthz"); code != 200 {
			t.Errorf("after a sign of activity: %d, want 200", code)
		}
	})
}

func TestReadinessSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	health := telemetry.NewHealth(0)
	h := telemetry.Handler(health, telemetry.NewRegistry("agent", "v1"))
	if code, body := get(t, h, "/readyz"); code != 200 || len(body["reasons"].([]any)) != 0 {
		t.Errorf("fresh: %d %v, want 200 and no reasons", code, body)
	}
	health.Set("service", errors.New("connection refused"))
	health.Set("docker", errors.New("no socket"))
	code, body := get(t, h, "/readyz")
	reasons := body["reasons"].([]any)
	if code != 503 || len(reasons) != 2 || reasons[0] != "docker: no socket" {
		t.Errorf("blocked: %d %v, want 503 and both reasons", code, body)
	}
	health.Set("service", nil)
	health.Set("docker", nil)
	if code, _ := get(t, h, "/readyz"); code != 200 {
		t.Errorf("mended: %d, want 200", code)
	}
	health.Note("slots", errors.New("all are in use"))
	code, body = get(t, h, "/readyz")
	if reasons := body["reasons"].([]any); code != 200 || len(reasons) != 1 || reasons[0] != "slots: all are in use" {
		t.Errorf("noted: %d %v, want 200 and the note", code, body)
	}
	health.Note("slots", nil)
	if _, body := get(t, h, "/readyz"); len(body["reasons"].([]any)) != 0 {
		t.Errorf("the note is still there: %v", body)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	listener, err := telemetry.Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- telemetry.Serve(ctx, listener, telemetry.Handler(telemetry.NewHealth(0), telemetry.NewRegistry("agent", "v1")))
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + listener.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(body), `longshore_agent_build_info{go="go`) {
		t.Errorf("/metrics has no build info:\n%.300s", body)
	}

	_, err = telemetry.Listen(t.Context(), "127.0.0.1", listener.Addr().(*net.TCPAddr).Port)
	if err == nil || !strings.Contains(err.Error(), "is taken") || !strings.Contains(err.Error(), "--http-server-port") {
		t.Errorf("Listen on a taken port = %v, want what to do about it", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve() = %v", err)
	}
}

func TestLogger(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		format, level string
		want, wantErr string
	}{
		"json":                  {"json", "info", `"message":"hello","n":1`, ""},
		"console":               {"console", "info", "INFO  hello", ""},
		"below the level":       {"json", "error", "", ""},
		"a level that is none":  {"json", "loud", "", "want debug, info, warn or error"},
		"a format that is none": {"xml", "info", "", "want json or console"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log, err := telemetry.NewLogger(&out, tc.format, tc.level)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("NewLogger() = %v, want %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			log.Info("hello", zap.Int("n", 1))
			if got := out.String(); (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
				t.Errorf("wrote %q, want %q", got, tc.want)
			}
		})
	}
}
