package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/longshore-run/longshore/e2e/rig"
	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
	"github.com/longshore-run/longshore/internal/control/logchunk"
	"github.com/longshore-run/longshore/internal/store"
)

// serverRecovery is the server's part of B10: killed, and started again over
// what it has stored.
func serverRecovery(ctx context.Context, b *bench, out io.Writer) error {
	stored := b.samples(10_000, 500)
	empty, err := b.keptServer(ctx, "b10-empty", 0)
	if err != nil {
		return err
	}
	full, err := b.keptServer(ctx, "b10-full", stored)
	if err != nil {
		return err
	}
	var ours, floor series
	for range b.samples(20, 3) {
		f, err := empty.killed(ctx)
		if err != nil {
			return err
		}
		o, err := full.killed(ctx)
		if err != nil {
			return err
		}
		floor, ours = append(floor, f), append(ours, o)
	}
	fmt.Fprintf(out, "The server is killed with SIGKILL and started again. Measured is from the start of the process to the first 200 of /readyz, which reads and\n"+
		"writes. Ours: %d deployments stored with their jobs and a log of 200 lines each, %d MiB. Floor: the same server over an empty database.\n\n"+besideHeader,
		stored, full.size()>>20)
	beside(out, "SQLite", ours, floor)
	fmt.Fprintf(out, "\n- p95 %s (target 500 ms): %s\n", ms(ours.p95()), verdict(ours.p95() <= 500*time.Millisecond))
	return nil
}

// keptServer is a server whose data outlives its processes.
type keptServer struct {
	b       *bench
	dir     string
	address string
}

// keptServer makes the data directory of a server with stored deployments.
func (b *bench) keptServer(ctx context.Context, name string, stored int) (*keptServer, error) {
	address, err := rig.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	k := &keptServer{b: b, dir: filepath.Join(b.dir, name), address: address}
	server, err := rig.StartServer(ctx, b.programs, k.dir, address) // makes the schema and the key
	if err != nil {
		return nil, err
	}
	if err := server.Stop(ctx); err != nil {
		return nil, err
	}
	return k, k.fill(ctx, stored)
}

func (k *keptServer) database() string { return filepath.Join(k.dir, "data", "longshore.db") }

// size returns how many bytes the database has.
func (k *keptServer) size() (total int64) {
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(k.database() + suffix); err == nil {
			total += info.Size()
		}
	}
	return total
}

// fill stores deployments that have ended, as the server does: over a hundred
// stacks, each with a job of five steps and 200 lines of log.
func (k *keptServer) fill(ctx context.Context, n int) (err error) {
	db, err := store.Open(ctx, k.database(), time.Now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	const owner = "bench"
	err = db.Update(ctx, func(tx control.Tx) error {
		return errors.Join(tx.AddUser(control.User{ID: owner, Name: owner}),
			tx.AddPool(control.Pool{ID: owner, Organization: "default", Name: owner}))
	})
	if err != nil {
		return err
	}
	codec := logchunk.New()
	lines := make([]api.LogLine, 50)
	for i := range lines {
		lines[i] = api.LogLine{Time: time.Now(), Text: fmt.Sprintf(" +  aws:s3:BucketObject object-%d creating (%d.%ds)\n", i, i%7, i%10)}
	}
	payload := codec.Encode(lines)
	const batch = 200
	for first := 0; first < n; first += batch {
		err := db.Update(ctx, func(tx control.Tx) error {
			for i := first; i < min(first+batch, n); i++ {
				if err := storeOne(tx, fmt.Sprintf("bench-%06d", i), owner, i%100, payload); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("store deployments: %w", err)
		}
	}
	return nil
}

// storeOne stores one deployment that has succeeded.
func storeOne(tx control.Tx, id, owner string, stack int, payload []byte) error {
	_, err := tx.AddDeployment(control.Deployment{
		ID: id, Stack: control.StackRef{Organization: "default", Project: "bench", Stack: fmt.Sprint("s", stack)},
		Operation: api.OperationUpdate, PoolID: owner, RequestedBy: control.User{ID: owner}, Request: []byte(`{"operation":"update"}`),
	})
	if err != nil {
		return err
	}
	now := tx.Now()
	job := control.Job{
		ID: "job-" + id, DeploymentID: id, RunID: "run-" + id, PoolID: owner, Status: api.StatusSucceeded,
		Claimed: now, Confirmed: now, Started: now, Modified: now, Ended: now, LastBeat: now,
	}
	for _, name := range []string{"Setup", "Get source", "Download dependencies", "Pulumi update", "Post-run"} {
		job.Steps = append(job.Steps, control.StepState{Name: name, Status: api.StepSucceeded, Started: now, Modified: now})
	}
	if err := tx.AddJob(job); err != nil {
		return err
	}
	for step := range 4 {
		if err := tx.AppendLog(job.ID, step, control.LogChunk{First: 0, Count: 50, Payload: payload}); err != nil {
			return err
		}
	}
	for _, move := range [][2]api.Status{
		{api.StatusNotStarted, api.StatusAccepted}, {api.StatusAccepted, api.StatusRunning}, {api.StatusRunning, api.StatusSucceeded},
	} {
		if err := tx.SetStatus(id, move[0], move[1]); err != nil {
			return err
		}
	}
	return nil
}

// killed starts the server, lets it write, kills it, and returns how long the
// next start takes to its first 200 of /readyz.
func (k *keptServer) killed(ctx context.Context) (time.Duration, error) {
	for last := false; ; last = true {
		began := time.Now()
		process, err := rig.Start(ctx, k.dir, "server", k.b.programs.Server,
			[]string{"serve", "--listen", k.address, "--data-dir", filepath.Join(k.dir, "data")}, nil)
		if err != nil {
			return 0, err
		}
		err = k.ready(ctx, process)
		took := time.Since(began)
		process.Kill()
		if err != nil || last {
			return took, err
		}
	}
}

// ready asks /readyz until it says so.
func (k *keptServer) ready(ctx context.Context, p *rig.Process) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+k.address+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.Done():
			return fmt.Errorf("the server ended: %s", p.Tail())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
