package executor

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api/client"
)

// heartbeats says that the job is alive, until ctx ends. A service that does not
// want to hear of the job any more ends it.
func (e *execution) heartbeats(ctx context.Context, stop context.CancelCauseFunc) {
	interval := orDefault(e.file.HeartbeatInterval.Std(), 30*time.Second)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		beatCtx, done := context.WithTimeout(ctx, max(interval, 5*time.Second))
		err := e.job.Heartbeat(beatCtx)
		done()
		switch {
		case err == nil || ctx.Err() != nil:
		case client.Gone(err):
			e.Log.Warn("heartbeat refused", zap.Error(err))
			stop(ErrRefused)
			return
		default:
			e.Log.Warn("heartbeat not delivered", zap.Error(err))
		}
	}
}

// watchSignals turns the first signal into a cancel. Those after it are named
// once in the job's log: whoever sends them should know that they do nothing.
func (e *execution) watchSignals(ctx context.Context, stop context.CancelCauseFunc) {
	asked, named := false, false
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-e.Signals:
			e.Log.Info("signal", zap.Stringer("signal", sig))
			switch {
			case !asked:
				asked = true
				e.report.signalled()
				stop(ErrCancelled)
			case !named:
				named = true
				e.streams.Step(e.courier.current()).Line("longshore: the job is being stopped already; another signal does not make it faster")
			}
		}
	}
}

// watchLogs ends the job when the service has refused its log for good.
func (e *execution) watchLogs(ctx context.Context, stop context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
	case <-e.streams.Stopped():
		if err := e.streams.Err(); client.Gone(err) {
			e.Log.Warn("log refused", zap.Error(err))
			stop(ErrRefused)
		}
	}
}
