package store

import (
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

const deploymentSelect = `SELECT d.id, s.organization, s.project, s.name, d.version, d.status, d.operation, d.pool_id,
	u.id, u.name, u.email, d.initiator, d.request, d.cancel_requested, d.created, d.modified
	FROM deployments d JOIN stacks s ON s.id = d.stack_id JOIN users u ON u.id = d.requested_by`

func readDeployment(s scan) (d control.Deployment, err error) {
	var cancelled, created, modified int64
	err = s(&d.ID, &d.Stack.Organization, &d.Stack.Project, &d.Stack.Stack, &d.Version, &d.Status, &d.Operation, &d.PoolID,
		&d.RequestedBy.ID, &d.RequestedBy.Name, &d.RequestedBy.Email, &d.Initiator, &d.Request, &cancelled, &created, &modified)
	d.CancelRequested, d.Created, d.Modified = at(cancelled), at(created), at(modified)
	return d, err
}

// ensureStack returns the id of a stack, which it makes known.
func (t *tx) ensureStack(ref control.StackRef) (id string, err error) {
	id, err = t.stackID(ref)
	if !errors.Is(err, control.ErrNotFound) {
		return id, err
	}
	v, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return v.String(), t.exec(`INSERT INTO stacks (id, organization, project, name, last_version, created) VALUES ($1, $2, $3, $4, 0, $5)`,
		v.String(), ref.Organization, ref.Project, ref.Stack, t.stamp())
}

func (t *tx) stackID(ref control.StackRef) (id string, err error) {
	err = t.row(`SELECT id FROM stacks WHERE organization = $1 AND project = $2 AND name = $3`,
		ref.Organization, ref.Project, ref.Stack)(&id)
	return id, err
}

func (t *tx) AddDeployment(d control.Deployment) (version int64, err error) {
	stack, err := t.ensureStack(d.Stack)
	if err != nil {
		return 0, err
	}
	if err := t.row(`UPDATE stacks SET last_version = last_version + 1 WHERE id = $1 RETURNING last_version`, stack)(&version); err != nil {
		return 0, err
	}
	return version, t.exec(`INSERT INTO deployments (id, stack_id, version, status, operation, pool_id, requested_by, initiator, request,
		cancel_requested, created, modified) VALUES ($1, $2, $3, 'not-started', $4, $5, $6, $7, $8, 0, $9, $9)`,
		d.ID, stack, version, d.Operation, d.PoolID, d.RequestedBy.ID, d.Initiator, d.Request, t.stamp())
}

func (t *tx) Deployment(id string) (control.Deployment, error) {
	return readDeployment(t.row(deploymentSelect+` WHERE d.id = $1`, id))
}

func (t *tx) DeploymentByVersion(ref control.StackRef, version int64) (control.Deployment, error) {
	stack, err := t.stackID(ref)
	if err != nil {
		return control.Deployment{}, err
	}
	return readDeployment(t.row(deploymentSelect+` WHERE d.stack_id = $1 AND d.version = $2`, stack, version))
}

// orders are the ways a list can be sorted, by the name of the API.
var orders = map[string]string{
	"":          "d.version",
	"version":   "d.version",
	"created":   "d.created",
	"modified":  "d.modified",
	"status":    "d.status",
	"operation": "d.operation",
}

func (t *tx) ListDeployments(ref control.StackRef, q control.ListQuery) ([]control.Deployment, int64, error) {
	stack, err := t.stackID(ref)
	if err != nil {
		return nil, 0, err
	}
	order, ok := orders[q.Sort]
	if !ok {
		return nil, 0, fmt.Errorf("list deployments: no order %q", q.Sort)
	}
	direction := " DESC"
	if q.Asc {
		direction = " ASC"
	}
	var total int64
	if err := t.row(`SELECT COUNT(*) FROM deployments WHERE stack_id = $1`, stack)(&total); err != nil {
		return nil, 0, err
	}
	page, err := list(t, readDeployment, deploymentSelect+` WHERE d.stack_id = $1 ORDER BY `+order+direction+`, d.version`+direction+
		` LIMIT $2 OFFSET $3`, stack, q.PageSize, (q.Page-1)*q.PageSize)
	return page, total, err
}

func (t *tx) LatestVersion(ref control.StackRef) (version int64, err error) {
	err = t.row(`SELECT last_version FROM stacks WHERE organization = $1 AND project = $2 AND name = $3`,
		ref.Organization, ref.Project, ref.Stack)(&version)
	return version, err
}

func (t *tx) SetStatus(id string, from, to api.Status) error {
	return t.must(control.ErrConflict, `UPDATE deployments SET status = $3, modified = $4 WHERE id = $1 AND status = $2`,
		id, from, to, t.stamp())
}

func (t *tx) RequestCancel(id string) error {
	return t.must(control.ErrNotFound, `UPDATE deployments SET cancel_requested = CASE cancel_requested WHEN 0 THEN $2 ELSE cancel_requested END,
		modified = $2 WHERE id = $1`, id, t.stamp())
}

// nextFor is a walk along the queue by its partial index, however much has been
// deployed before. What belongs to the deployment is read after it.
const nextFor = `SELECT d.id FROM deployments d WHERE d.status = 'not-started'
		AND d.pool_id IN ($1, $2) AND EXISTS (SELECT 1 FROM stacks s WHERE s.id = d.stack_id AND s.organization = $3)
		AND NOT EXISTS (SELECT 1 FROM deployments e WHERE e.stack_id = d.stack_id AND e.version < d.version
			AND e.status IN ('not-started', 'accepted', 'running'))
		ORDER BY d.created, d.id LIMIT 1`

func (t *tx) NextFor(organization, poolID string, isDefault bool) (control.Deployment, error) {
	also := poolID // a pool that is not the default looks for its own id twice
	if isDefault {
		also = ""
	}
	var id string
	err := t.row(nextFor, poolID, also, organization)(&id)
	if err != nil {
		return control.Deployment{}, err
	}
	return t.Deployment(id)
}

func (t *tx) NextOf(ref control.StackRef) (control.Deployment, error) {
	stack, err := t.stackID(ref)
	if err != nil {
		return control.Deployment{}, err
	}
	return readDeployment(t.row(deploymentSelect+` WHERE d.stack_id = $1 AND d.status IN ('not-started', 'accepted', 'running')
		ORDER BY d.version LIMIT 1`, stack))
}

func (t *tx) QueueDepth() (n int64, err error) {
	err = t.row(`SELECT COUNT(*) FROM deployments WHERE status = 'not-started'`)(&n)
	return n, err
}

func (t *tx) Settings(ref control.StackRef) (body []byte, version int64, err error) {
	stack, err := t.stackID(ref)
	if err != nil {
		return nil, 0, err
	}
	err = t.row(`SELECT body, version FROM settings WHERE stack_id = $1`, stack)(&body, &version)
	return body, version, err
}

func (t *tx) SaveSettings(ref control.StackRef, body []byte) (version int64, err error) {
	stack, err := t.ensureStack(ref)
	if err != nil {
		return 0, err
	}
	err = t.row(`INSERT INTO settings (stack_id, version, body, modified) VALUES ($1, 1, $2, $3)
		ON CONFLICT (stack_id) DO UPDATE SET version = settings.version + 1, body = excluded.body, modified = excluded.modified
		RETURNING version`, stack, body, t.stamp())(&version)
	return version, err
}
