package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/longshore-run/longshore/internal/control"
)

const jobColumns = `id, deployment_id, run_id, pool_id, status, lost,
	agent_hostname, agent_ip, agent_pid, agent_platform, agent_version, claimed, confirmed, started, modified, ended, last_beat, holder`

func readJob(s scan) (j control.Job, err error) {
	var claimed, confirmed, started, modified, ended, beat int64
	err = s(&j.ID, &j.DeploymentID, &j.RunID, &j.PoolID, &j.Status, &j.Lost,
		&j.Agent.Hostname, &j.Agent.IP, &j.Agent.Pid, &j.Agent.Platform, &j.Agent.Version,
		&claimed, &confirmed, &started, &modified, &ended, &beat, &j.Holder)
	j.Claimed, j.Confirmed, j.Started = at(claimed), at(confirmed), at(started)
	j.Modified, j.Ended, j.LastBeat = at(modified), at(ended), at(beat)
	return j, err
}

func (t *tx) AddJob(j control.Job) error {
	err := t.exec(`INSERT INTO jobs (`+jobColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
		j.ID, j.DeploymentID, j.RunID, j.PoolID, j.Status, j.Lost,
		j.Agent.Hostname, j.Agent.IP, j.Agent.Pid, j.Agent.Platform, j.Agent.Version,
		nanos(j.Claimed), nanos(j.Confirmed), nanos(j.Started), nanos(j.Modified), nanos(j.Ended), nanos(j.LastBeat), j.Holder)
	if err != nil {
		return err
	}
	for i, s := range j.Steps {
		err := t.exec(`INSERT INTO steps (job_id, idx, name, status, started, modified, lines) VALUES ($1, $2, $3, $4, $5, $6, 0)`,
			j.ID, i, s.Name, s.Status, nanos(s.Started), nanos(s.Modified))
		if err != nil {
			return err
		}
	}
	return t.exec(`UPDATE pools SET last_deployment = $2 WHERE id = $1`, j.PoolID, t.stamp())
}

func (t *tx) Job(id string) (control.Job, error) {
	return t.withSteps(readJob(t.row(`SELECT `+jobColumns+` FROM jobs WHERE id = $1`, id)))
}

func (t *tx) JobOf(deploymentID string) (control.Job, error) {
	return t.withSteps(readJob(t.row(`SELECT `+jobColumns+` FROM jobs WHERE deployment_id = $1 AND NOT (lost AND confirmed = 0)`, deploymentID)))
}

func (t *tx) withSteps(j control.Job, err error) (control.Job, error) {
	if err != nil {
		return control.Job{}, err
	}
	j.Steps, err = list(t, func(s scan) (st control.StepState, err error) {
		var started, modified int64
		err = s(&st.Name, &st.Status, &started, &modified, &st.Lines)
		st.Started, st.Modified = at(started), at(modified)
		return st, err
	}, `SELECT name, status, started, modified, lines FROM steps WHERE job_id = $1 ORDER BY idx`, j.ID)
	return j, err
}

func (t *tx) SetJob(j control.Job) error {
	return t.must(control.ErrNotFound, `UPDATE jobs SET status = $2, lost = $3, started = $4, modified = $5, ended = $6, last_beat = $7, confirmed = $8, holder = $9 WHERE id = $1`,
		j.ID, j.Status, j.Lost, nanos(j.Started), nanos(j.Modified), nanos(j.Ended), nanos(j.LastBeat), nanos(j.Confirmed), j.Holder)
}

func (t *tx) SetStep(jobID string, index int, s control.StepState) error {
	return t.must(control.ErrNotFound, `UPDATE steps SET status = $3, started = $4, modified = $5 WHERE job_id = $1 AND idx = $2`,
		jobID, index, s.Status, nanos(s.Started), nanos(s.Modified))
}

func (t *tx) SilentJobs(confirmed bool, before, after time.Time) ([]control.Job, error) {
	jobs, err := list(t, readJob, `SELECT `+jobColumns+` FROM jobs WHERE ended = 0 AND (confirmed <> 0) = $1
		AND (last_beat < $2 OR last_beat > $3) ORDER BY last_beat, id`, confirmed, nanos(before), nanos(after))
	if err != nil {
		return nil, err
	}
	for i := range jobs {
		if jobs[i], err = t.withSteps(jobs[i], nil); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

func (t *tx) Beat(jobID string) error {
	return t.must(control.ErrNotFound, `UPDATE jobs SET last_beat = $2, confirmed = CASE confirmed WHEN 0 THEN $2 ELSE confirmed END WHERE id = $1`, jobID, t.stamp())
}

func (t *tx) LogCursor(jobID string, step int) (control.LogCursor, error) {
	var c control.LogCursor
	var beat int64
	err := t.row(`SELECT s.lines, j.confirmed <> 0, j.ended <> 0, j.lost, j.last_beat FROM steps s JOIN jobs j ON j.id = s.job_id WHERE s.job_id = $1 AND s.idx = $2`,
		jobID, step)(&c.Lines, &c.Confirmed, &c.Ended, &c.Lost, &beat)
	c.LastBeat = at(beat)
	return c, err
}

func (t *tx) AppendLog(jobID string, step int, c control.LogChunk) error {
	err := t.must(control.ErrConflict, `UPDATE steps SET lines = lines + $4 WHERE job_id = $1 AND idx = $2 AND lines = $3`,
		jobID, step, c.First, c.Count)
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO log_chunks (job_id, step, first, count, payload) VALUES ($1, $2, $3, $4, $5)`,
		jobID, step, c.First, c.Count, c.Payload)
}

func (t *tx) LogChunks(jobID string, step int, from int64, f func(control.LogChunk) bool) error {
	// The chunk that holds line from is the last one that begins at or before it.
	var first int64
	err := t.row(`SELECT first FROM log_chunks WHERE job_id = $1 AND step = $2 AND first <= $3 ORDER BY first DESC LIMIT 1`,
		jobID, step, from)(&first)
	if errors.Is(err, control.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find log line %d: %w", from, err)
	}
	return t.each(func(s scan) (bool, error) {
		var c control.LogChunk
		if err := s(&c.First, &c.Count, &c.Payload); err != nil {
			return false, wrap(err)
		}
		return f(c), nil
	}, `SELECT first, count, payload FROM log_chunks WHERE job_id = $1 AND step = $2 AND first >= $3 ORDER BY first`, jobID, step, first)
}
