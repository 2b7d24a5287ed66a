// Package restclient is a small client of the public Deployments API, as a user
// of the service would write one: the demo, the end-to-end tests and the
// benchmarks see Longshore through it. It knows nothing of the server's code
// beyond the types of the contract.
package restclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Client calls one service as one user. It may be used concurrently.
type Client struct {
	URL   string // base URL, without /api
	Token string // user token
	HTTP  *http.Client
}

// Stack names a stack as the API's paths do: organization/project/stack.
type Stack string

// Create creates a deployment. The request is what the API documents; any value
// that encodes to such a JSON object will do.
func (c *Client) Create(ctx context.Context, stack Stack, request any) (api.CreateDeploymentResponse, error) {
	var out api.CreateDeploymentResponse
	return out, c.Do(ctx, http.MethodPost, "/api/stacks/"+string(stack)+"/deployments", request, &out)
}

// Get reads a deployment.
func (c *Client) Get(ctx context.Context, stack Stack, id string) (api.GetDeploymentResponse, error) {
	var out api.GetDeploymentResponse
	return out, c.Do(ctx, http.MethodGet, "/api/stacks/"+string(stack)+"/deployments/"+id, nil, &out)
}

// Cancel asks for a deployment to end.
func (c *Client) Cancel(ctx context.Context, stack Stack, id string) error {
	return c.Do(ctx, http.MethodPost, "/api/stacks/"+string(stack)+"/deployments/"+id+"/cancel", nil, nil)
}

// CreatePool makes an agent pool and returns its id and token.
func (c *Client) CreatePool(ctx context.Context, org, name string) (api.CreateAccessTokenResponse, error) {
	var out api.CreateAccessTokenResponse
	return out, c.Do(ctx, http.MethodPost, "/api/orgs/"+org+"/agent-pools",
		map[string]string{"name": name, "description": ""}, &out)
}

// Logs reads one page of a deployment's log in streaming mode. An empty next
// token means that there is no more and never will be.
func (c *Client) Logs(ctx context.Context, stack Stack, id, token string) (lines []api.DeploymentLogLine, next string, err error) {
	path := "/api/stacks/" + string(stack) + "/deployments/" + id + "/logs"
	if token != "" {
		path += "?continuationToken=" + url.QueryEscape(token)
	}
	var out struct {
		Lines     []api.DeploymentLogLine `json:"lines"`
		NextToken string                  `json:"nextToken"`
	}
	err = c.Do(ctx, http.MethodGet, path, nil, &out)
	return out.Lines, out.NextToken, err
}

// StepLogs reads one page of one step's log. A next offset of -1 means the end.
func (c *Client) StepLogs(ctx context.Context, stack Stack, id string, step int, offset int64, count int) (lines []api.DeploymentStepLogLine, next int64, err error) {
	query := url.Values{"job": {"0"}, "step": {strconv.Itoa(step)}, "offset": {strconv.FormatInt(offset, 10)}, "count": {strconv.Itoa(count)}}
	var out struct {
		Lines      []api.DeploymentStepLogLine `json:"lines"`
		NextOffset *int64                      `json:"nextOffset"`
	}
	err = c.Do(ctx, http.MethodGet, "/api/stacks/"+string(stack)+"/deployments/"+id+"/logs?"+query.Encode(), nil, &out)
	if out.NextOffset == nil {
		return out.Lines, -1, err
	}
	return out.Lines, *out.NextOffset, err
}

// Follow calls line for every row of the log, headers included, until the
// deployment has ended and everything was read.
func (c *Client) Follow(ctx context.Context, stack Stack, id string, line func(api.DeploymentLogLine)) error {
	token := ""
	for {
		lines, next, err := c.Logs(ctx, stack, id, token)
		if err != nil {
			return err
		}
		for _, l := range lines {
			line(l)
		}
		if next == "" {
			return nil
		}
		if next == token {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(50 * time.Millisecond):
			}
		}
		token = next
	}
}

// WaitEnd returns the deployment once its status is an end.
func (c *Client) WaitEnd(ctx context.Context, stack Stack, id string) (api.GetDeploymentResponse, error) {
	return c.WaitFor(ctx, stack, id, api.Status.Terminal)
}

// WaitFor returns the deployment once its status satisfies ok.
func (c *Client) WaitFor(ctx context.Context, stack Stack, id string, ok func(api.Status) bool) (api.GetDeploymentResponse, error) {
	for {
		d, err := c.Get(ctx, stack, id)
		if err != nil {
			return d, err
		}
		if ok(d.Status) {
			return d, nil
		}
		select {
		case <-ctx.Done():
			return d, fmt.Errorf("deployment %s is %s: %w", id, d.Status, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Do sends one request. An answer of 400 or more becomes an *api.Error.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "token "+c.Token)
	req.Header.Set("Content-Type", "application/json")
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		e := &api.Error{Code: resp.StatusCode}
		if json.Unmarshal(answer, e) != nil || e.Message == "" {
			e.Message = string(answer)
		}
		return fmt.Errorf("%s %s: %w", method, path, e)
	}
	if out == nil || len(answer) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s %s: decode the answer: %w", method, path, err)
	}
	return nil
}
