package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/backend"
	"github.com/longshore-run/longshore/internal/host"
)

// leaderName is the file in a job's directory that names its executor.
const leaderName = "executor.json"

// leader is a process, and no other that gets its id later.
type leader struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`  // in clock ticks since the host's start
	Boot  string `json:"bootID"` // which start that was
	// Program is its file, which runs the steps' own commands, too.
	Program string `json:"program"`
	// Deployment is the job's, and Grace how long its operation may take to end.
	Deployment string        `json:"deploymentID"`
	Grace      time.Duration `json:"grace"`
}

// Left lists the job directories. Those of an agent that was killed before it
// had started the executor are not started.
func (b *Backend) Left(ctx context.Context) ([]backend.Remnant, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	entries, err := os.ReadDir(filepath.Join(b.config.Directory, jobsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	var left []backend.Remnant
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		dir := filepath.Join(b.config.Directory, jobsName, e.Name())
		r := backend.Remnant{JobID: e.Name()}
		l, known := readLeader(dir)
		switch {
		case known:
			r.DeploymentID, r.Started = l.Deployment, true
		case findLeader(dir) != 0, exists(filepath.Join(dir, reportName)):
			r.Started = true
		}
		left = append(left, r)
	}
	return left, nil
}

// Adopt watches an executor that another process has started.
func (b *Backend) Adopt(ctx context.Context, jobID string) (backend.Workload, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if !validID(jobID) {
		return nil, backend.ErrGone
	}
	dir := filepath.Join(b.config.Directory, jobsName, jobID)
	if !exists(dir) {
		return nil, backend.ErrGone
	}
	l, known := readLeader(dir)
	if !known {
		l.PID = findLeader(dir)
		l.Start, l.Boot = startOf(l.PID), host.BootID()
	}
	w := newWorkload(dir, b.config.Log)
	w.leader = l
	if process, err := os.FindProcess(l.PID); err == nil && l.alive() {
		w.process = process // of which the system keeps hold, so it is l's
	}
	go w.own(func() { awaitOther(l) }) //nolint:contextcheck,gosec // it watches for as long as the job runs
	return w, nil
}

// Sweep removes the probes of checks that were killed halfway. All else there is
// belongs to jobs.
func (b *Backend) Sweep(ctx context.Context) (removed []string, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	probes, err := filepath.Glob(filepath.Join(b.config.Directory, jobsName, probePattern))
	if err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	for _, probe := range probes {
		info, err := os.Lstat(probe)
		if err != nil || time.Since(info.ModTime()) < probeAge {
			continue
		}
		if os.Remove(probe) == nil {
			removed = append(removed, probe)
		}
	}
	return removed, nil
}

// probeAge is how old a probe must be to be nobody's: a check takes no time.
const probeAge = time.Hour

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// readLeader returns what the directory of a job says about its executor.
func readLeader(dir string) (l leader, known bool) {
	data, err := os.ReadFile(filepath.Join(dir, leaderName))
	if err != nil || json.Unmarshal(data, &l) != nil || l.PID <= 1 {
		return leader{}, false
	}
	return l, true
}

// writeLeader notes who the executor is, for the next agent. Where it cannot,
// the process table tells, unless somebody removes the marks from it.
func writeLeader(dir string, l leader) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, "."+leaderName)
	if err := os.WriteFile(temporary, data, secretMode); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, leaderName))
}
