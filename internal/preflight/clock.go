package preflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// askTimeout bounds a question for the service's time.
const askTimeout = 5 * time.Second

// Clock compares the clock of this host with that of the service, as the Date
// of its answers tells it. It learns from every answer that passes through its
// RoundTrip, and asks by itself when it knows nothing yet, or when the clocks
// seem apart: so it finds out by itself that they agree again.
//
// Between two answers it counts on with the host's monotonic clock, so a clock
// that jumps is noticed before the next poll. The monotonic clock stands still
// while a host sleeps; asking tells the one from the other.
type Clock struct {
	base    string // of the service, without a slash at the end
	max     time.Duration
	next    http.RoundTripper
	now     func() time.Time     // what the clock of this host shows
	elapsed func() time.Duration // what has passed, whatever the clock shows

	mu     sync.Mutex
	known  bool
	theirs time.Time     // the service's time, when elapsed was at
	at     time.Duration // see theirs
}

// NewClock returns a Clock for the service at base, whose requests go through
// next. Clocks may be apart by limit; 0 is no limit.
func NewClock(base string, limit time.Duration, next http.RoundTripper) *Clock {
	began := time.Now()
	return &Clock{
		base: strings.TrimRight(base, "/"), max: limit, next: next,
		now:     func() time.Time { return time.Now().Round(0) },
		elapsed: func() time.Duration { return time.Since(began) },
	}
}

// RoundTrip makes a request, and learns from its answer.
func (c *Clock) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := c.next.RoundTrip(req)
	if err == nil && strings.HasPrefix(req.URL.String(), c.base+"/") && res.Header.Get("Age") == "" {
		c.learn(res.Header.Get("Date"))
	}
	return res, err
}

// CloseIdleConnections closes the connections that are not in use.
func (c *Clock) CloseIdleConnections() {
	if next, ok := c.next.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}

// learn takes a Date that has just arrived.
func (c *Clock) learn(date string) {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.theirs, c.at = true, theirs, c.elapsed()
}

// skew returns by how much the clock of this host is ahead.
func (c *Clock) skew() (skew time.Duration, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now().Sub(c.theirs.Add(c.elapsed() - c.at)), c.known
}

// Check reports whether the clocks agree well enough. A service that does not
// answer, or answers without a Date, is no reason to say that they do not.
func (c *Clock) Check(ctx context.Context) error {
	if c.max <= 0 {
		return nil
	}
	skew, known := c.skew()
	if known && skew.Abs() <= c.max {
		return nil
	}
	err := c.ask(ctx)
	if skew, known = c.skew(); !known || skew.Abs() <= c.max {
		return nil
	}
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	text := fmt.Sprintf("the clock of this host is %v %s that of the service, which is more than the %v of --clock-max-skew: tokens would be taken for expired; correct the clock, for example with timedatectl set-ntp true",
		skew.Abs().Round(time.Second), direction, c.max)
	if err != nil {
		return fmt.Errorf("%s (as far as is known: the service does not answer at the moment: %w)", text, err)
	}
	return errors.New(text)
}

// ask makes a request whose answer says nothing but the time.
func (c *Clock) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.base+"/", nil)
	if err != nil {
		return err
	}
	res, err := c.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	return res.Body.Close()
}
