package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Job makes the calls of one job. It is safe for concurrent use.
type Job struct {
	c     *Client
	path  string
	token string
}

// Job returns a view of c that authenticates with the token of one job.
func (c *Client) Job(id, token string) *Job {
	return &Job{c: c, path: "/api/workflow/jobs/" + url.PathEscape(id), token: token}
}

// Definition fetches the job's definition. Whether it makes sense is for
// api.JobDefinition.Validate to say.
func (j *Job) Definition(ctx context.Context) (api.JobDefinition, error) {
	var d api.JobDefinition
	err := j.c.retry(ctx, func() error {
		d = api.JobDefinition{}
		cl := call{name: "definition", method: http.MethodGet, path: j.path}
		if holder := j.c.o.Holder; holder != "" {
			cl.header = http.Header{api.HeaderHolder: {holder}}
		}
		_, err := j.once(ctx, cl, &d)
		return err
	})
	if err != nil {
		return api.JobDefinition{}, err
	}
	return d, nil
}

// Step reports the status of a step. Reporting the same one again is harmless.
func (j *Job) Step(ctx context.Context, index int, s api.StepStatus) error {
	body, err := json.Marshal(struct {
		Status api.StepStatus `json:"status"`
	}{s})
	if err != nil {
		return fmt.Errorf("encode step status: %w", err)
	}
	cl := call{name: "step", method: http.MethodPatch, path: j.step(index) + "/status", body: body}
	return j.c.retry(ctx, func() error {
		_, err := j.once(ctx, cl, nil)
		return err
	})
}

// Logs sends one batch with exactly one request: whoever keeps the lines repeats
// it, with the same offset.
func (j *Job) Logs(ctx context.Context, index int, b api.LogBatch) error {
	return j.RawLogs(ctx, index, b.AppendJSON(nil))
}

// RawLogs is Logs for a batch that is already encoded. Nothing reads body once
// it has returned.
func (j *Job) RawLogs(ctx context.Context, index int, body []byte) error {
	_, err := j.once(ctx, call{name: "logs", method: http.MethodPost, path: j.step(index) + "/logs", body: body}, nil)
	return err
}

// Heartbeat says that the job is alive.
func (j *Job) Heartbeat(ctx context.Context) error {
	cl := call{name: "heartbeat", method: http.MethodPost, path: j.path + "/heartbeat", body: []byte("{}")}
	return j.c.retry(ctx, func() error {
		_, err := j.once(ctx, cl, nil)
		return err
	})
}

func (j *Job) step(index int) string { return j.path + "/" + strconv.Itoa(index) }

// once makes one request with the job's token.
func (j *Job) once(ctx context.Context, cl call, v any) (reply, error) {
	token, err := usable(j.token)
	if err != nil {
		return reply{}, j.c.fail(cl, time.Now(), OutcomeNotTried, 0, fmt.Errorf("job token: %w", err))
	}
	cl.token = token
	if v != nil {
		cl.check = func(r reply) error {
			if r.status == http.StatusNoContent {
				return errors.New("the reply is empty")
			}
			return nil
		}
	}
	return j.c.decode(ctx, cl, v)
}
