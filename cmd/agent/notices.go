package main

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/agent"
	"github.com/longshore-run/longshore/internal/config"
	"github.com/longshore-run/longshore/internal/lifecycle"
	"github.com/longshore-run/longshore/internal/notice"
)

// lastMinute is how long before its machine goes an agent cancels what is in
// hand: the time for Pulumi to write down what it has done, and for the logs to
// be delivered.
const lastMinute = time.Minute

// heedNotices drains the agent when the cloud is about to take its machine away.
// It watches in parts until ctx ends.
func heedNotices(ctx context.Context, c *config.Agent, a *agent.Agent, stops *lifecycle.Stops, log *zap.Logger, parts *sync.WaitGroup) error {
	if c.InstanceNotices == config.NoticesOff {
		return nil
	}
	watcher, err := notice.New(notice.Options{Cloud: c.InstanceNotices, BaseURL: c.InstanceMetadataURL, Log: log})
	if err != nil {
		return err
	}
	parts.Go(func() {
		watcher.Run(ctx, func(n notice.Notice) {
			fields := []zap.Field{zap.String("kind", string(n.Kind)), zap.String("detail", n.Detail)}
			if !n.At.IsZero() {
				fields = append(fields, zap.Time("goes_at", n.At), zap.Time("jobs_may_run_until", n.At.Add(-lastMinute)))
				a.CancelBy(n.At.Add(-lastMinute))
			}
			log.Warn("this machine is about to go: draining", fields...)
			stops.Drain()
		})
	})
	return nil
}
