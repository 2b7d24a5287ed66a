package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// beatEvery is how often accepted log lines are noted as a sign of life.
const beatEvery = 10 * time.Second

// AppendLog adds a batch to the log of a step. Lines that are there already are
// dropped, so a batch may be sent again; one that would leave a gap is a 409
// with the offset that is expected.
func (s *Service) AppendLog(ctx context.Context, p Principal, jobID string, step int, batch api.LogBatch) error {
	if err := p.needJob(jobID); err != nil {
		return err
	}
	if batch.Offset < 0 {
		return api.Errorf(http.StatusBadRequest, "offset: must not be negative")
	}
	size := 0
	for i, l := range batch.Lines {
		if len(l.Text) > api.MaxLineBytes {
			return api.Errorf(http.StatusBadRequest, "lines[%d]: %d bytes are more than the limit of %d, split the line", i, len(l.Text), api.MaxLineBytes)
		}
		size += len(l.Text)
	}
	chunk := LogChunk{First: batch.Offset, Count: len(batch.Lines), Payload: s.codec.Encode(batch.Lines)}
	accepted := 0
	err := s.store.Update(ctx, func(tx Tx) error {
		c, err := tx.LogCursor(jobID, step)
		if err != nil {
			return s.whichStep(tx, jobID, step, err)
		}
		if c.Lost {
			// The service itself wrote the last line of this log, so offsets of
			// the runner mean nothing any more.
			return endedError()
		}
		if batch.Offset > c.Lines {
			return &api.Error{
				Code: http.StatusConflict, ExpectedOffset: &c.Lines,
				Message: fmt.Sprintf("offset %d leaves a gap: step %d has %d lines", batch.Offset, step, c.Lines),
			}
		}
		known := min(int(c.Lines-batch.Offset), len(batch.Lines))
		if known == len(batch.Lines) {
			return nil
		}
		if known > 0 {
			rest := batch.Lines[known:]
			for _, l := range batch.Lines[:known] {
				size -= len(l.Text)
			}
			chunk = LogChunk{First: c.Lines, Count: len(rest), Payload: s.codec.Encode(rest)}
		}
		accepted = size
		if err := tx.AppendLog(jobID, step, chunk); err != nil {
			return err
		}
		if c.Ended || c.Confirmed && tx.Now().Sub(c.LastBeat).Abs() < beatEvery {
			return nil
		}
		return tx.Beat(jobID)
	})
	if err != nil {
		return err
	}
	s.metrics.logBytes.Add(float64(accepted))
	return nil
}

// whichStep says which steps there are when one was asked for that is not.
func (s *Service) whichStep(tx Tx, jobID string, step int, err error) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	j, err := tx.Job(jobID)
	if err != nil {
		return err
	}
	return noStep(step, len(j.Steps))
}
