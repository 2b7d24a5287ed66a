package preflight

import (
	"errors"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		disk Disk
		want string // in the error; empty for none
	}{
		"room enough":               {Disk{dir, 1}, ""},
		"no floor":                  {Disk{filepath.Join(dir, "missing"), 0}, ""},
		"less than the floor":       {Disk{dir, math.MaxInt64}, "less than the 8.389e+06 TiB of --disk-min-free"},
		"a directory that is none":  {Disk{filepath.Join(dir, "missing"), 1}, "cannot find out"},
		"an error names what to do": {Disk{dir, math.MaxInt64}, "--working-directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tc.disk.Check(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Check() = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[float64]string{12: "12 bytes", 1 << 20: "1 MiB", 1.5 * (1 << 30): "1.5 GiB"} {
		if got := size(bytes); got != want {
			t.Errorf("size(%v) = %q, want %q", bytes, got, want)
		}
	}
}

// world is a host and a service, each with a clock of its own. It is the
// connection between them.
type world struct {
	mine, theirs time.Time
	elapsed      time.Duration
	away         bool
	header       http.Header // in the place of the Date
	asked        []string
}

func newWorld(limit time.Duration) (*world, *Clock) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w := &world{mine: start, theirs: start}
	c := NewClock("https://service.example/base/", limit, w)
	c.now = func() time.Time { return w.mine }
	c.elapsed = func() time.Duration { return w.elapsed }
	return w, c
}

// pass lets time go by for everybody.
func (w *world) pass(d time.Duration) {
	w.mine, w.theirs, w.elapsed = w.mine.Add(d), w.theirs.Add(d), w.elapsed+d
}

func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	w.asked = append(w.asked, req.Method+" "+req.URL.String())
	if w.away {
		return nil, errors.New("connection refused")
	}
	header := w.header
	if header == nil {
		header = http.Header{"Date": {w.theirs.UTC().Format(http.TimeFormat)}}
	}
	return &http.Response{StatusCode: http.StatusNotFound, Header: header, Body: http.NoBody}, nil
}

func (w *world) call(t *testing.T, c *Clock, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	w.asked = nil
}

func TestClock(t *testing.T) {
	t.Parallel()
	const poll = "https://service.example/base/api/deployments/poll"
	for name, tc := range map[string]struct {
		happens func(t *testing.T, w *world, c *Clock)
		want    string // in the error; empty for none
		asked   int
	}{
		"asks when it knows nothing": {func(*testing.T, *world, *Clock) {}, "", 1},
		"learns from what is called anyway": {func(t *testing.T, w *world, c *Clock) {
			w.call(t, c, poll)
			w.pass(10 * time.Hour)
		}, "", 0},
		"is ahead at the start": {func(_ *testing.T, w *world, _ *Clock) { w.mine = w.mine.Add(time.Hour) }, "the clock of this host is 1h0m0s ahead of", 1},
		"is behind at the start": {func(_ *testing.T, w *world, _ *Clock) {
			w.mine = w.mine.Add(-time.Hour)
		}, "the clock of this host is 1h0m0s behind that", 1},
		"is off by less than the limit": {func(_ *testing.T, w *world, _ *Clock) { w.mine = w.mine.Add(4 * time.Minute) }, "", 1},
		"jumps between two polls": {func(t *testing.T, w *world, c *Clock) {
			w.call(t, c, poll)
			w.pass(time.Minute)
			w.mine = w.mine.Add(time.Hour)
		}, "1h0m0s ahead", 1},
		"jumps, and is set right": {func(t *testing.T, w *world, c *Clock) {
			w.call(t, c, poll)
			w.mine = w.mine.Add(time.Hour)
			if err := c.Check(t.Context()); err == nil {
				t.Error("the jump was not noticed")
			}
			w.mine, w.asked = w.mine.Add(-time.Hour), nil
		}, "", 0},
		"jumps while the service is away": {func(t *testing.T, w *world, c *Clock) {
			w.call(t, c, poll)
			w.mine, w.away = w.mine.Add(time.Hour), true
		}, "the service does not answer", 1},
		"stands still with the host for a while": {func(t *testing.T, w *world, c *Clock) {
			w.call(t, c, poll)
			w.pass(20 * time.Minute)
			w.elapsed -= 20 * time.Minute // not counted while suspended
		}, "", 1},
		"of a service that is away":    {func(_ *testing.T, w *world, _ *Clock) { w.away = true }, "", 1},
		"of a service without a date":  {func(_ *testing.T, w *world, _ *Clock) { w.header = http.Header{} }, "", 1},
		"of a service with a bad date": {func(_ *testing.T, w *world, _ *Clock) { w.header = http.Header{"Date": {"noon"}} }, "", 1},
		"is not learnt from other hosts": {func(t *testing.T, w *world, c *Clock) {
			w.theirs = w.theirs.Add(time.Hour)
			w.call(t, c, "https://service.example.org/base/api")
			w.theirs = w.theirs.Add(-time.Hour)
		}, "", 1},
		"is not learnt from a cache": {func(t *testing.T, w *world, c *Clock) {
			w.header = http.Header{"Date": {w.theirs.Add(-time.Hour).Format(http.TimeFormat)}, "Age": {"3600"}}
			w.call(t, c, poll)
			w.header = nil
		}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, c := newWorld(5 * time.Minute)
			tc.happens(t, w, c)
			err := c.Check(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Check() = %v, want %q", err, tc.want)
			}
			if len(w.asked) != tc.asked {
				t.Errorf("asked %q, want %d questions", w.asked, tc.asked)
			}
			for _, question := range w.asked {
				if question != "HEAD https://service.example/base/" {
					t.Errorf("asked %q: a question must not be a claim", question)
				}
			}
		})
	}
}

func TestClockWithoutALimitAsksNothing(t *testing.T) {
	t.Parallel()
	w, c := newWorld(0)
	w.mine = w.mine.Add(time.Hour)
	if err := c.Check(t.Context()); err != nil || len(w.asked) != 0 {
		t.Errorf("Check() = %v, asked %q, want neither", err, w.asked)
	}
}
