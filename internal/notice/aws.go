package notice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// aws asks the instance metadata service, version 2, of Amazon EC2.
type aws struct {
	meta  *metadata
	token string // of a session; empty: none yet
}

func (*aws) name() string { return AWS }

func (a *aws) there(ctx context.Context) error { return a.session(ctx) }

// session gets a token.
func (a *aws) session(ctx context.Context) error {
	const path = "/latest/api/token"
	got, err := a.meta.ask(ctx, http.MethodPut, path, "X-aws-ec2-metadata-token-ttl-seconds", "21600")
	if err != nil {
		return err
	}
	if got.status != http.StatusOK || got.text == "" {
		return got.unexpected(path)
	}
	a.token = got.text
	return nil
}

// get returns what is at path, empty when there is nothing.
func (a *aws) get(ctx context.Context, path string) (string, error) {
	for range 2 {
		if a.token == "" {
			if err := a.session(ctx); err != nil {
				return "", err
			}
		}
		got, err := a.meta.ask(ctx, http.MethodGet, "/latest/meta-data/"+path, "X-aws-ec2-metadata-token", a.token)
		switch {
		case err != nil:
			return "", err
		case got.status == http.StatusOK:
			return got.text, nil
		case got.status == http.StatusNotFound:
			return "", nil
		case got.status != http.StatusUnauthorized:
			return "", got.unexpected(path)
		}
		a.token = "" // it has expired
	}
	return "", errors.New("the metadata service does not accept the token it has just given")
}

func (a *aws) look(ctx context.Context) ([]Notice, error) {
	var notices []Notice
	var errs []error
	for _, part := range []struct {
		path string
		read func(text string) (Notice, bool, error)
	}{
		{"spot/instance-action", instanceAction},
		{"events/recommendations/rebalance", rebalance},
		{"autoscaling/target-lifecycle-state", lifecycleState},
	} {
		text, err := a.get(ctx, part.path)
		if err == nil && text != "" {
			var n Notice
			var is bool
			if n, is, err = part.read(text); is {
				notices = append(notices, n)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part.path, err))
		}
	}
	return notices, errors.Join(errs...)
}

// instanceAction reads {"action": "terminate", "time": "2017-09-18T08:22:00Z"}.
func instanceAction(text string) (Notice, bool, error) {
	var action struct {
		Action string
		Time   time.Time
	}
	if err := json.Unmarshal([]byte(text), &action); err != nil {
		return Notice{}, false, err
	}
	if action.Action == "" {
		return Notice{}, false, nil
	}
	return Notice{
		Kind: Reclaimed, Detail: "the spot instance is to " + action.Action, At: action.Time,
		id: "spot " + action.Action + action.Time.String(),
	}, true, nil
}

// rebalance reads {"noticeTime": "2020-10-27T08:22:00Z"}, the time of the notice.
func rebalance(string) (Notice, bool, error) {
	return Notice{Kind: Rebalance, Detail: "the spot instance is at an elevated risk of interruption", id: "rebalance"}, true, nil
}

// lifecycleState reads the state that the auto scaling group wants.
func lifecycleState(text string) (Notice, bool, error) {
	switch text {
	case "Terminated", "Warmed:Terminated", "Warmed:Stopped", "Warmed:Hibernated":
		return Notice{Kind: ScaleIn, Detail: "the auto scaling group wants the instance to be " + text, id: "state " + text}, true, nil
	}
	return Notice{}, false, nil
}
