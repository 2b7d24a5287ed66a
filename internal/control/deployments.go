package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/longshore-run/longshore/internal/api"
)

// CreateDeployment puts a deployment into the queue. Whatever is wrong with the
// request is one 400 that names every field; nothing is kept of it then.
// initiator says what asked for it (X-Pulumi-Deployment-Initiator) and may be
// empty.
func (s *Service) CreateDeployment(ctx context.Context, by User, stack StackRef, req api.CreateDeploymentRequest, initiator string) (api.CreateDeploymentResponse, error) {
	var out api.CreateDeploymentResponse
	if err := s.known(stack.Organization); err != nil {
		return out, err
	}
	if err := checkStack(stack); err != nil {
		return out, err
	}
	operation, err := operationOf(req)
	if err != nil {
		return out, err
	}
	request, err := s.sealRequest(stack, req, operation)
	if err != nil {
		return out, err
	}
	id, err := newID()
	if err != nil {
		return out, err
	}
	inherit := req.InheritSettings == nil || *req.InheritSettings
	err = s.update(ctx, func(tx Tx, after *effects) error {
		d := Deployment{
			ID: id, Stack: stack, Status: api.StatusNotStarted, Operation: operation,
			RequestedBy: by, Initiator: shorten(initiator), Request: request,
		}
		if err := s.completeRequest(tx, &d, inherit); err != nil {
			return err
		}
		var err error
		if d.Version, err = tx.AddDeployment(d); err != nil {
			return err
		}
		next, err := tx.NextOf(stack)
		if err != nil {
			return err
		}
		out = api.CreateDeploymentResponse{ID: id, Version: d.Version, ConsoleURL: s.consoleURL(stack, d.Version)}
		if next.ID != id {
			return nil // it waits for its stack
		}
		return after.queued(tx, d)
	})
	if err != nil {
		return api.CreateDeploymentResponse{}, err
	}
	return out, nil
}

// sealRequest returns the request as it is kept.
func (s *Service) sealRequest(stack StackRef, req api.CreateDeploymentRequest, operation api.Operation) ([]byte, error) {
	// Values are changed in place below, and the caller's must stay as they are.
	text, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("copy request: %w", err)
	}
	var own api.CreateDeploymentRequest
	if err := json.Unmarshal(text, &own); err != nil {
		return nil, fmt.Errorf("copy request: %w", err)
	}
	if err := sealSecrets(&own, s.sealer, stack); err != nil {
		return nil, badRequest(err)
	}
	own.Operation = operation
	if own.OperationContext != nil {
		own.OperationContext.Operation = ""
	}
	if text, err = json.Marshal(own); err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return text, nil
}

// completeRequest merges the saved settings into the request of d, checks the
// result and chooses the pool.
func (s *Service) completeRequest(tx Tx, d *Deployment, inherit bool) error {
	if inherit {
		settings, _, err := tx.Settings(d.Stack)
		switch {
		case err == nil:
			if d.Request, err = MergeSettings(settings, d.Request); err != nil {
				return err
			}
		case !errors.Is(err, ErrNotFound):
			return err
		}
	}
	req, err := decodeRequest(*d)
	if err != nil {
		return err
	}
	if err := validate(req); err != nil {
		return err
	}
	if err := Compile(s.compileInput(*d, req)).Validate(); err != nil {
		return badRequest(err)
	}
	if d.PoolID = req.AgentPoolID; d.PoolID == "" {
		return nil
	}
	if _, err := tx.Pool(d.Stack.Organization, d.PoolID); errors.Is(err, ErrNotFound) {
		return api.Errorf(http.StatusBadRequest, "agentPoolID: "+noPool, shorten(d.PoolID))
	} else if err != nil {
		return err
	}
	return nil
}

func decodeRequest(d Deployment) (req api.CreateDeploymentRequest, err error) {
	if err := json.Unmarshal(d.Request, &req); err != nil {
		return req, fmt.Errorf("stored request of deployment %s: %w", d.ID, err)
	}
	req.Operation = d.Operation
	return req, nil
}

func (s *Service) compileInput(d Deployment, req api.CreateDeploymentRequest) CompileInput {
	return CompileInput{
		DeploymentID: d.ID,
		Version:      d.Version,
		Stack:        d.Stack,
		Operation:    d.Operation,
		Request:      req,
		PublicURL:    s.publicURL,
		BackendURL:   s.backendURL,
		ConsoleURL:   s.consoleURL(d.Stack, d.Version),
		DefaultImage: s.defaultImage,
	}
}

func (s *Service) consoleURL(stack StackRef, version int64) string {
	return fmt.Sprintf("%s/%s/deployments/%d", s.publicURL, stack, version)
}

// find returns a deployment of a stack.
func (s *Service) find(tx Tx, stack StackRef, id string) (Deployment, error) {
	d, err := tx.Deployment(id)
	if err == nil && d.Stack != stack {
		err = ErrNotFound
	}
	return d, orNotFound(err, "there is no deployment %q of stack %s", shorten(id), stack)
}

// Deployment returns one deployment of a stack.
func (s *Service) Deployment(ctx context.Context, stack StackRef, id string) (api.GetDeploymentResponse, error) {
	return s.get(ctx, stack, func(tx Tx) (Deployment, error) { return s.find(tx, stack, id) })
}

// DeploymentByVersion returns one deployment of a stack by its version.
func (s *Service) DeploymentByVersion(ctx context.Context, stack StackRef, version int64) (api.GetDeploymentResponse, error) {
	return s.get(ctx, stack, func(tx Tx) (Deployment, error) {
		d, err := tx.DeploymentByVersion(stack, version)
		return d, orNotFound(err, "there is no deployment with version %d of stack %s", version, stack)
	})
}

func (s *Service) get(ctx context.Context, stack StackRef, find func(Tx) (Deployment, error)) (out api.GetDeploymentResponse, err error) {
	if err := s.known(stack.Organization); err != nil {
		return out, err
	}
	err = s.store.View(ctx, func(tx Tx) error {
		d, err := find(tx)
		if err != nil {
			return err
		}
		out = api.GetDeploymentResponse{
			ID: d.ID, Version: d.Version, Status: d.Status, PulumiOperation: d.Operation,
			Created: d.Created, Modified: d.Modified, Initiator: d.Initiator, RequestedBy: userInfo(d.RequestedBy),
		}
		if out.LatestVersion, err = tx.LatestVersion(stack); err != nil {
			return err
		}
		if out.Jobs, _, err = jobsOf(tx, d); err != nil {
			return err
		}
		req, err := decodeRequest(d)
		out.Configuration = configuration(req)
		return err
	})
	return out, err
}

// Deployments lists deployments of a stack.
func (s *Service) Deployments(ctx context.Context, stack StackRef, q ListQuery) (api.ListDeploymentResponseV2, error) {
	out := api.ListDeploymentResponseV2{Deployments: []api.ListDeploymentSnapshot{}}
	if err := s.known(stack.Organization); err != nil {
		return out, err
	}
	if err := q.normalize(); err != nil {
		return out, err
	}
	err := s.store.View(ctx, func(tx Tx) error {
		page, total, err := tx.ListDeployments(stack, q)
		if err != nil {
			return orNotFound(err, "stack %s is not known: a stack is known from its first deployment on", stack)
		}
		out.Total, out.ItemsPerPage = total, int64(q.PageSize)
		for _, d := range page {
			row, err := snapshot(tx, d)
			if err != nil {
				return err
			}
			out.Deployments = append(out.Deployments, row)
		}
		return nil
	})
	return out, err
}

// normalize fills in what was not given and refuses what makes no sense.
func (q *ListQuery) normalize() error {
	var p problems
	if q.Page == 0 {
		q.Page = 1
	}
	if q.PageSize == 0 {
		q.PageSize = 10
	}
	if q.Page < 1 || q.Page > 1<<30 {
		p.add("page", "%d is out of range, the first page is 1", q.Page)
	}
	if q.PageSize < 1 || q.PageSize > 100 {
		p.add("pageSize", "%d is out of range, want 1 to 100", q.PageSize)
	}
	if !slices.Contains([]string{"", "version", "created", "modified", "status", "operation"}, q.Sort) {
		p.add("sort", "%q is no order, want version, created, modified, status or operation", shorten(q.Sort))
	}
	return p.err()
}

// CancelDeployment skips a deployment that waits and asks the runner of one
// that runs to stop; such a deployment keeps its status until the runner has.
// For a deployment that has ended it does nothing.
func (s *Service) CancelDeployment(ctx context.Context, _ User, stack StackRef, id string) error {
	if err := s.known(stack.Organization); err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx, after *effects) error {
		d, err := s.find(tx, stack, id)
		if err != nil {
			return err
		}
		return s.cancel(tx, after, d)
	})
}

func (s *Service) cancel(tx Tx, after *effects, d Deployment) error {
	switch {
	case d.Status.Terminal():
		return nil
	case d.Status == api.StatusNotStarted:
		return after.end(tx, d, api.StatusSkipped)
	}
	after.ring = append(after.ring, d.ID)
	return tx.RequestCancel(d.ID)
}
