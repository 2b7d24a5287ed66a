package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/longshore-run/longshore/internal/api"
)

// Limits of what one answer holds.
const (
	streamRows  = 500
	streamBytes = 4 << 20
	// MaxStepLines is the most lines that can be asked for in step mode.
	MaxStepLines = 499
)

// The names by which clients tell the two kinds of log apart.
const (
	typeStream = "DeploymentLogs"
	typeStep   = "DeploymentLogsStep"
)

// StreamLogs returns the next part of the whole log of a deployment: for each
// step a row with its name, then its lines. The answer's token asks for what
// follows; it is the same token as long as there is nothing new, and there is
// none once the deployment has ended and all is read. An empty token asks for
// the beginning.
func (s *Service) StreamLogs(ctx context.Context, stack StackRef, id, continuationToken string) (api.DeploymentLogs, error) {
	out := api.DeploymentLogs{Type: typeStream}
	if err := s.known(stack.Organization); err != nil {
		return out, err
	}
	at, err := parsePosition(continuationToken)
	if err != nil {
		return out, err
	}
	err = s.store.View(ctx, func(tx Tx) error {
		d, j, err := s.logOf(tx, stack, id)
		if err != nil {
			return err
		}
		if at.step > len(j.Steps) && len(j.Steps) > 0 {
			return errPosition()
		}
		r := streamReader{s: s, tx: tx, job: j, at: at}
		if err := r.read(); err != nil {
			return err
		}
		out.Lines = r.rows
		if !d.Status.Terminal() || r.at.step < len(j.Steps) {
			out.NextToken = r.at.String()
		}
		return nil
	})
	return out, err
}

// logOf returns a deployment and its job; the job has no steps when there is
// none yet.
func (s *Service) logOf(tx Tx, stack StackRef, id string) (Deployment, Job, error) {
	d, err := s.find(tx, stack, id)
	if err != nil {
		return d, Job{}, err
	}
	j, err := tx.JobOf(d.ID)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return d, j, err
}

// position is where a reader of the stream is: row 0 of a step is its header,
// row n its line n-1.
type position struct {
	step int
	row  int64
}

func (p position) String() string { return fmt.Sprintf("0.%d.%d", p.step, p.row) }

func errPosition() error {
	return api.Errorf(http.StatusBadRequest, "continuationToken: is not one of this log, leave it out to begin at the start")
}

func parsePosition(token string) (p position, err error) {
	if token == "" {
		return p, nil
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[0] != "0" {
		return p, errPosition()
	}
	if p.step, err = strconv.Atoi(parts[1]); err == nil {
		p.row, err = strconv.ParseInt(parts[2], 10, 64)
	}
	if err != nil || p.step < 0 || p.step > api.MaxSteps || p.row < 0 {
		return p, errPosition()
	}
	return p, nil
}

// streamReader walks through the steps of a job.
type streamReader struct {
	s    *Service
	tx   Tx
	job  Job
	at   position
	rows []api.DeploymentLogLine
	size int
}

func (r *streamReader) full() bool { return len(r.rows) >= streamRows || r.size >= streamBytes }

func (r *streamReader) read() error {
	for r.at.step < len(r.job.Steps) && !r.full() {
		step := r.job.Steps[r.at.step]
		begun := step.Status != api.StepNotStarted || step.Lines > 0
		if begun && r.at.row == 0 {
			r.rows = append(r.rows, api.DeploymentLogLine{Header: step.Name})
			r.at.row = 1
		}
		if begun && r.at.row <= step.Lines {
			if err := r.lines(step); err != nil {
				return err
			}
		}
		if r.at.row <= step.Lines && begun || !closed(r.job, r.at.step) {
			return nil
		}
		r.at = position{step: r.at.step + 1}
	}
	return nil
}

func (r *streamReader) lines(step StepState) error {
	lines, err := r.s.readLines(r.tx, r.job.ID, r.at.step, r.at.row-1, streamRows-len(r.rows), streamBytes-r.size)
	for _, l := range lines {
		r.rows = append(r.rows, api.DeploymentLogLine{Timestamp: l.Time, Line: l.Text})
		r.size += len(l.Text)
	}
	r.at.row += int64(len(lines))
	return err
}

// closed reports whether a reader may take the log of a step for complete: the
// step has ended and the next has begun, or the job has ended.
func closed(j Job, step int) bool {
	if !j.Ended.IsZero() {
		return true
	}
	return j.Steps[step].Status.Terminal() && step+1 < len(j.Steps) && j.Steps[step+1].Status != api.StepNotStarted
}

// readLines returns up to count lines from line from on, and stops early once
// they hold more than size bytes.
func (s *Service) readLines(tx Tx, jobID string, step int, from int64, count, size int) (lines []api.LogLine, err error) {
	if count <= 0 || size <= 0 {
		return nil, nil
	}
	readErr := tx.LogChunks(jobID, step, from, func(c LogChunk) bool {
		skip := int(from + int64(len(lines)) - c.First)
		var part []api.LogLine
		if part, err = s.codec.Decode(c.Payload, skip, count-len(lines)); err != nil {
			err = fmt.Errorf("log of job %s, step %d, line %d: %w", jobID, step, c.First, err)
			return false
		}
		for i, l := range part {
			if size -= len(l.Text); size < 0 {
				lines = append(lines, part[:i+1]...)
				return false
			}
		}
		lines = append(lines, part...)
		return len(lines) < count
	})
	return lines, errors.Join(readErr, err)
}

// StepLogs returns up to count lines (1 to MaxStepLines) of one step, from line
// offset on. The answer's nextOffset asks for what follows; there is none at
// the end of the log of a step that is complete.
func (s *Service) StepLogs(ctx context.Context, stack StackRef, id string, job, step int, offset int64, count int) (api.DeploymentLogsStep, error) {
	out := api.DeploymentLogsStep{Type: typeStep, Lines: []api.DeploymentStepLogLine{}}
	if err := s.known(stack.Organization); err != nil {
		return out, err
	}
	var p problems
	if count < 1 || count > MaxStepLines {
		p.add("count", "%d is out of range, want 1 to %d", count, MaxStepLines)
	}
	if offset < 0 {
		p.add("offset", "must not be negative")
	}
	if err := p.err(); err != nil {
		return out, err
	}
	err := s.store.View(ctx, func(tx Tx) error {
		d, j, err := s.logOf(tx, stack, id)
		if err != nil {
			return err
		}
		waits := len(j.Steps) == 0 && !d.Status.Terminal()
		switch {
		case job != 0:
			return api.Errorf(http.StatusNotFound, "the deployment has no job %d, its only job is 0", job)
		case waits && step >= 0: // its steps are known once it is claimed
			out.NextOffset = &offset
			return nil
		case step < 0 || step >= len(j.Steps):
			return noStep(step, len(j.Steps))
		}
		lines, err := s.readLines(tx, j.ID, step, offset, count, streamBytes)
		for _, l := range lines {
			out.Lines = append(out.Lines, api.DeploymentStepLogLine{Timestamp: l.Time, Line: l.Text})
		}
		out.Name = j.Steps[step].Name
		if next := offset + int64(len(lines)); next < j.Steps[step].Lines || !closed(j, step) {
			out.NextOffset = &next
		}
		return err
	})
	return out, err
}
