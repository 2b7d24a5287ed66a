package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
)

// wire is a service without a network, for tests in which time is fake.
type wire func(*http.Request) (int, http.Header, string, error)

func (f wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	code, header, body, err := f(r)
	if err != nil {
		return nil, err
	}
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func over(t *testing.T, f wire, change ...func(*client.Options)) *client.Client {
	t.Helper()
	o := client.Options{BaseURL: "http://service", HTTP: &http.Client{Transport: f}}
	for _, c := range change {
		c(&o)
	}
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRetryAfterIsObeyedWithinReason(t *testing.T) {
	for value, want := range map[string][2]time.Duration{
		"5":      {5 * time.Second, 6 * time.Second},
		"0":      {200 * time.Millisecond, time.Second},
		"-3":     {200 * time.Millisecond, time.Second},
		"1.5":    {1500 * time.Millisecond, 2 * time.Second},
		"999999": {15 * time.Minute, 17 * time.Minute},
		"1e300":  {15 * time.Minute, 17 * time.Minute},
		"NaN":    {10 * time.Second, 30 * time.Second}, // as if it were not there
		"soon":   {10 * time.Second, 30 * time.Second},
		"":       {10 * time.Second, 30 * time.Second},
		"date":   {time.Minute, 70 * time.Second},
		"past":   {200 * time.Millisecond, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			began, n := time.Now(), 0
			var waited time.Duration
			c := over(t, func(*http.Request) (int, http.Header, string, error) {
				if n++; n > 1 {
					waited = time.Since(began)
					return 200, nil, "{}", nil
				}
				v := value
				switch value {
				case "date":
					v = time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)
				case "past":
					v = time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
				}
				return 429, http.Header{"Retry-After": {v}}, "", nil
			})
			if err := c.Job("j", token).Heartbeat(t.Context()); err != nil {
				t.Fatal(err)
			}
			if waited < want[0] || waited > want[1] {
				t.Errorf("Retry-After %q: waited %s, want %s to %s", value, waited, want[0], want[1])
			}
		})
	}
}

func TestRetriesEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := over(t, func(*http.Request) (int, http.Header, string, error) { return 503, nil, "", nil },
			func(o *client.Options) { o.Retries = -1 })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		began := time.Now()
		err := c.Job("j", token).Step(ctx, 1, api.StepFailed)
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "503") || took < 7*time.Minute || took > 10*time.Minute {
			t.Errorf("Step() = %v after %s", err, took)
		}
	})
}

func TestAHeldPollHasItsWaitOnTop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := over(t, func(r *http.Request) (int, http.Header, string, error) {
			<-r.Context().Done()
			return 0, nil, "", r.Context().Err()
		})
		began := time.Now()
		_, err := pool(c).Poll(t.Context(), time.Minute)
		if took := time.Since(began); !client.Retryable(err) || took != 90*time.Second {
			t.Errorf("Poll() = %v after %s", err, took)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		code, n := 500, 0
		c := over(t, func(*http.Request) (int, http.Header, string, error) {
			n++
			return code, nil, `"running"`, nil
		})
		p := pool(c)
		poll := func() error { _, err := p.Poll(t.Context(), 0); return err }
		for i, want := range []bool{false, false, true, true} {
			if err := poll(); errors.Is(err, client.ErrBreakerOpen) != want {
				t.Errorf("poll %d: %v", i, err)
			}
		}
		var e *client.Error
		if err := poll(); n != 2 || !client.Retryable(err) || !errors.As(err, &e) || e.RetryAfter() != 10*time.Minute {
			t.Errorf("%d requests were made, then %v", n, err)
		}
		code = 200
		if _, _, err := p.DeploymentStatus(t.Context(), "d", 0); err != nil {
			t.Errorf("the status call pays for the poll: %v", err)
		}
		time.Sleep(10*time.Minute + time.Second)
		code = 204
		for range 3 {
			if err := poll(); err != nil {
				t.Errorf("after the pause: %v", err)
			}
		}
		code = 403 // an answer, however unwelcome
		for range 5 {
			if err := poll(); !client.Refused(err) {
				t.Errorf("a refusal becomes %v", err)
			}
		}
	})
}
