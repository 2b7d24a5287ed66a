package control

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// maxDescription is the longest description of a pool, in bytes.
const maxDescription = 1000

func checkPool(name, description string) error {
	var p problems
	if name == "" || len(name) > 100 || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		p.add("name", "%q is no name: use 1 to 100 printable characters", shorten(name))
	}
	if len(description) > maxDescription {
		p.add("description", "is longer than %d bytes", maxDescription)
	}
	return p.err()
}

// CreatePool makes a pool with a token, which is shown this once. The first
// pool of an organisation is its default.
func (s *Service) CreatePool(ctx context.Context, org string, req api.CreateOrgAgentPoolRequest) (api.CreateAccessTokenResponse, error) {
	var none api.CreateAccessTokenResponse
	if err := s.known(org); err != nil {
		return none, err
	}
	if err := checkPool(req.Name, req.Description); err != nil {
		return none, err
	}
	id, err := newID()
	if err != nil {
		return none, err
	}
	token := newToken(PrefixPool)
	hash, _ := hashToken(token)
	err = s.store.Update(ctx, func(tx Tx) error {
		if err := tx.AddPool(Pool{ID: id, Organization: org, Name: req.Name, Description: req.Description}); err != nil {
			return err
		}
		if err := tx.AddToken(Token{Hash: hash, Kind: KindPool, Organization: org, PoolID: id}); err != nil {
			return err
		}
		current, err := tx.DefaultPool(org)
		if err != nil || current != "" {
			return err
		}
		return tx.SetDefaultPool(org, id)
	})
	if err != nil {
		return none, orTaken(err, req.Name)
	}
	return api.CreateAccessTokenResponse{ID: id, TokenValue: token}, nil
}

func orTaken(err error, name string) error {
	if errors.Is(err, ErrConflict) {
		return api.Errorf(http.StatusConflict, "there is a pool named %q already", name)
	}
	return err
}

// Pools lists the pools of an organisation.
func (s *Service) Pools(ctx context.Context, org string) (api.ListAgentPoolsResponse, error) {
	out := api.ListAgentPoolsResponse{AgentPools: []api.AgentPool{}}
	if err := s.known(org); err != nil {
		return out, err
	}
	err := s.store.View(ctx, func(tx Tx) (err error) {
		if out.DefaultAgentPoolID, err = tx.DefaultPool(org); err != nil {
			return err
		}
		pools, err := tx.Pools(org)
		for _, p := range pools {
			one := api.AgentPool{
				ID: p.ID, Name: p.Name, Description: p.Description, Created: p.Created.Unix(),
				IsDefault: p.ID == out.DefaultAgentPoolID, Status: s.presenceOf(p.LastSeen), LastSeen: unix(p.LastSeen),
			}
			if !p.LastDeployment.IsZero() {
				last := p.LastDeployment.Unix()
				one.LastDeployment = &last
			}
			out.AgentPools = append(out.AgentPools, one)
		}
		return err
	})
	return out, err
}

// presenceOf is the status of who was seen then.
func (s *Service) presenceOf(seen time.Time) string {
	if !seen.IsZero() && s.since(seen) <= AgentOnline {
		return "online"
	}
	return "offline"
}

// unix returns seconds, 0 for the zero time.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

const noPool = "there is no agent pool %q in this organization"

// Pool returns a pool with the agents that were seen in the last day.
func (s *Service) Pool(ctx context.Context, org, id string) (api.AgentPoolDetail, error) {
	out := api.AgentPoolDetail{Agents: []api.DeploymentAgentMetadata{}}
	if err := s.known(org); err != nil {
		return out, err
	}
	err := s.store.View(ctx, func(tx Tx) error {
		p, err := tx.Pool(org, id)
		if err != nil {
			return orNotFound(err, noPool, shorten(id))
		}
		out.ID, out.Name, out.Description, out.Created = p.ID, p.Name, p.Description, p.Created.Unix()
		agents, err := tx.Agents(id)
		for _, a := range agents {
			out.Agents = append(out.Agents, api.DeploymentAgentMetadata{
				Hostname: a.Hostname, IP: a.IP, Pid: a.Pid, Platform: a.Platform, Version: a.Version,
				LastSeen: unix(a.LastSeen), Status: s.presenceOf(a.LastSeen),
			})
		}
		return err
	})
	return out, err
}

// PatchPool changes the name and the description of a pool; what is empty in
// req stays as it is.
func (s *Service) PatchPool(ctx context.Context, org, id string, req api.CreateOrgAgentPoolRequest) (api.PatchOrgAgentPoolResponse, error) {
	var out api.PatchOrgAgentPoolResponse
	if err := s.known(org); err != nil {
		return out, err
	}
	err := s.store.Update(ctx, func(tx Tx) error {
		p, err := tx.Pool(org, id)
		if err != nil {
			return orNotFound(err, noPool, shorten(id))
		}
		p.Name, p.Description = or(req.Name, p.Name), or(req.Description, p.Description)
		if err := checkPool(p.Name, p.Description); err != nil {
			return err
		}
		out.Name, out.Description = p.Name, p.Description
		return tx.SetPool(p)
	})
	return out, orTaken(err, req.Name)
}

// DeletePool removes a pool and its token. While unfinished deployments name
// the pool or run in it, it is refused unless force is set; then those that
// wait are skipped and those that run are asked to stop.
func (s *Service) DeletePool(ctx context.Context, org, id string, force bool) error {
	if err := s.known(org); err != nil {
		return err
	}
	return s.update(ctx, func(tx Tx, after *effects) error {
		if _, err := tx.Pool(org, id); err != nil {
			return orNotFound(err, noPool, shorten(id))
		}
		using, err := tx.PoolDeployments(id)
		if err != nil {
			return err
		}
		if len(using) > 0 && !force {
			return api.Errorf(http.StatusBadRequest, "the pool is in use by %d unfinished deployments: wait for them, cancel them, or delete with force", len(using))
		}
		for _, d := range using {
			if err := s.cancel(tx, after, d); err != nil {
				return err
			}
		}
		if err := tx.DeletePool(id); err != nil {
			return err
		}
		return s.replaceDefault(tx, after, org, id)
	})
}

// replaceDefault makes the oldest pool that is left the default if the deleted
// one was it.
func (s *Service) replaceDefault(tx Tx, after *effects, org, deleted string) error {
	current, err := tx.DefaultPool(org)
	if err != nil || current != deleted {
		return err
	}
	pools, err := tx.Pools(org)
	if err != nil {
		return err
	}
	next := ""
	if len(pools) > 0 {
		next = pools[0].ID
		after.wake = append(after.wake, next)
	}
	return tx.SetDefaultPool(org, next)
}
