package notice

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestAMachineWithoutAServiceIsAskedGently: most machines are in no cloud.
func TestAMachineWithoutAServiceIsAskedGently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, err := New(Options{Cloud: Auto})
		if err != nil {
			t.Fatal(err)
		}
		began, asked := time.Now(), new(atomic.Int32)
		w.meta.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			if time.Since(began) < time.Hour || r.Header.Get("Metadata-Flavor") == "" {
				return nil, errors.New("no route to host")
			}
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Metadata-Flavor": {"Google"}},
				Body: io.NopCloser(strings.NewReader("TRUE")),
			}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		told, done := make(chan Notice, 10), make(chan struct{})
		go func() {
			defer close(done)
			w.Run(ctx, func(n Notice) { told <- n })
		}()
		time.Sleep(time.Hour - time.Second)
		if n := asked.Load(); n != 3*60 {
			t.Errorf("%d requests in an hour, want one for each cloud every minute", n)
		}
		if n := <-told; n.Kind != Reclaimed {
			t.Errorf("told %+v, want that the machine is reclaimed", n)
		}
		time.Sleep(time.Minute)
		if len(told) != 0 {
			t.Error("the same was told again")
		}
		cancel()
		<-done
	})
}
