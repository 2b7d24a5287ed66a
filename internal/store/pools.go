package store

import (
	"database/sql"
	"time"

	"github.com/longshore-run/longshore/internal/control"
)

func (t *tx) EnsureOrganization(name string) error {
	return t.exec(`INSERT INTO organizations (name, default_pool, created) VALUES ($1, '', $2) ON CONFLICT (name) DO NOTHING`,
		name, t.stamp())
}

func (t *tx) DefaultPool(organization string) (id string, err error) {
	err = t.row(`SELECT default_pool FROM organizations WHERE name = $1`, organization)(&id)
	return id, err
}

func (t *tx) SetDefaultPool(organization, poolID string) error {
	return t.must(control.ErrNotFound, `UPDATE organizations SET default_pool = $2 WHERE name = $1`, organization, poolID)
}

func (t *tx) AddUser(u control.User) error {
	return t.exec(`INSERT INTO users (id, name, email, created) VALUES ($1, $2, $3, $4)`, u.ID, u.Name, u.Email, t.stamp())
}

func (t *tx) User(id string) (u control.User, err error) {
	err = t.row(`SELECT id, name, email FROM users WHERE id = $1`, id)(&u.ID, &u.Name, &u.Email)
	return u, err
}

func (t *tx) HasUsers() (has bool, err error) {
	err = t.row(`SELECT EXISTS (SELECT 1 FROM users)`)(&has)
	return has, err
}

func (t *tx) AddToken(k control.Token) error {
	return t.exec(`INSERT INTO tokens (hash, kind, organization, user_id, pool_id, job_id, created) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		k.Hash[:], k.Kind, k.Organization, orNull(k.UserID), orNull(k.PoolID), orNull(k.JobID), t.stamp())
}

func (t *tx) Token(hash control.TokenHash) (control.Token, error) {
	var (
		k                 control.Token
		stored            []byte
		user, pool, jobID sql.NullString
		created           int64
	)
	err := t.row(`SELECT hash, kind, organization, user_id, pool_id, job_id, created FROM tokens WHERE hash = $1`, hash[:])(
		&stored, &k.Kind, &k.Organization, &user, &pool, &jobID, &created)
	copy(k.Hash[:], stored)
	k.UserID, k.PoolID, k.JobID, k.Created = user.String, pool.String, jobID.String, at(created)
	return k, err
}

func orNull(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

const poolColumns = `id, organization, name, description, created, last_seen, last_deployment`

func readPool(s scan) (p control.Pool, err error) {
	var created, seen, deployed int64
	err = s(&p.ID, &p.Organization, &p.Name, &p.Description, &created, &seen, &deployed)
	p.Created, p.LastSeen, p.LastDeployment = at(created), at(seen), at(deployed)
	return p, err
}

func (t *tx) AddPool(p control.Pool) error {
	return t.exec(`INSERT INTO pools (`+poolColumns+`) VALUES ($1, $2, $3, $4, $5, 0, 0)`,
		p.ID, p.Organization, p.Name, p.Description, t.stamp())
}

func (t *tx) Pool(organization, id string) (control.Pool, error) {
	return readPool(t.row(`SELECT `+poolColumns+` FROM pools WHERE id = $2 AND organization = $1`, organization, id))
}

func (t *tx) Pools(organization string) ([]control.Pool, error) {
	return list(t, readPool, `SELECT `+poolColumns+` FROM pools WHERE organization = $1 ORDER BY created, id`, organization)
}

func (t *tx) SetPool(p control.Pool) error {
	return t.must(control.ErrNotFound, `UPDATE pools SET name = $2, description = $3 WHERE id = $1`, p.ID, p.Name, p.Description)
}

func (t *tx) DeletePool(id string) error {
	return t.must(control.ErrNotFound, `DELETE FROM pools WHERE id = $1`, id) // tokens and agents follow by reference
}

func (t *tx) PoolDeployments(id string) ([]control.Deployment, error) {
	return list(t, readDeployment, deploymentSelect+`
		WHERE d.id IN (SELECT id FROM deployments WHERE status = 'not-started' AND pool_id = $1
			UNION SELECT deployment_id FROM jobs WHERE pool_id = $1 AND ended = 0)
		ORDER BY d.created, d.id`, id)
}

func (t *tx) SeeAgent(poolID string, a control.AgentInfo) error {
	now := t.stamp()
	if err := t.must(control.ErrNotFound, `UPDATE pools SET last_seen = $2 WHERE id = $1`, poolID, now); err != nil {
		return err
	}
	return t.exec(`INSERT INTO agents (pool_id, hostname, pid, ip, platform, version, last_seen) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (pool_id, hostname, pid) DO UPDATE SET ip = excluded.ip, platform = excluded.platform,
			version = excluded.version, last_seen = excluded.last_seen`,
		poolID, a.Hostname, a.Pid, a.IP, a.Platform, a.Version, now)
}

func (t *tx) Agents(poolID string) ([]control.Agent, error) {
	return list(t, func(s scan) (a control.Agent, err error) {
		var seen int64
		err = s(&a.PoolID, &a.Hostname, &a.Pid, &a.IP, &a.Platform, &a.Version, &seen)
		a.LastSeen = at(seen)
		return a, err
	}, `SELECT pool_id, hostname, pid, ip, platform, version, last_seen FROM agents WHERE pool_id = $1
		ORDER BY last_seen DESC, hostname, pid`, poolID)
}

func (t *tx) ForgetAgents(before time.Time) error {
	return t.exec(`DELETE FROM agents WHERE last_seen < $1`, nanos(before))
}
