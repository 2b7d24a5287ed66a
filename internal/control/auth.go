package control

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/longshore-run/longshore/internal/api"
)

// newID returns an id that sorts by the time it was made.
func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return id.String(), nil
}

// Bootstrap makes the organisation and, on the first start, a user named admin
// with a token, which it returns: it is kept nowhere else. Later starts return
// an empty token.
func (s *Service) Bootstrap(ctx context.Context) (userToken string, err error) {
	var p problems
	p.checkName("organization", s.organization)
	if err := p.err(); err != nil {
		return "", err
	}
	err = s.store.Update(ctx, func(tx Tx) error {
		if err := tx.EnsureOrganization(s.organization); err != nil {
			return err
		}
		if has, err := tx.HasUsers(); has || err != nil {
			return err
		}
		id, err := newID()
		if err != nil {
			return err
		}
		if err := tx.AddUser(User{ID: id, Name: "admin"}); err != nil {
			return err
		}
		token := newToken(PrefixUser)
		hash, _ := hashToken(token)
		userToken = token
		return tx.AddToken(Token{Hash: hash, Kind: KindUser, Organization: s.organization, UserID: id})
	})
	if err != nil {
		return "", fmt.Errorf("first start: %w", err)
	}
	return userToken, nil
}

func unauthorized() error {
	return api.Errorf(http.StatusUnauthorized, "the access token is missing, unknown or no longer valid")
}

// Authenticate says who a token stands for. A token that is missing, unknown or
// dead is a 401. The token of a job that has ended is dead LateTail later.
func (s *Service) Authenticate(ctx context.Context, token string) (Principal, error) {
	hash, ok := hashToken(token)
	if !ok {
		return Principal{}, unauthorized()
	}
	var p Principal
	err := s.store.View(ctx, func(tx Tx) error {
		k, err := tx.Token(hash)
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare(k.Hash[:], hash[:]) != 1 {
			return ErrNotFound
		}
		p = Principal{Kind: k.Kind, Organization: k.Organization, PoolID: k.PoolID, JobID: k.JobID}
		switch k.Kind {
		case KindUser:
			p.User, err = tx.User(k.UserID)
		case KindJob:
			err = s.jobPrincipal(tx, &p)
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return Principal{}, unauthorized()
	}
	if err != nil {
		return Principal{}, fmt.Errorf("authenticate: %w", err)
	}
	return p, nil
}

func (s *Service) jobPrincipal(tx Tx, p *Principal) error {
	j, err := tx.Job(p.JobID)
	if err != nil {
		return err
	}
	p.JobEnded = !j.Ended.IsZero()
	if p.JobEnded && s.since(j.Ended) > LateTail {
		return ErrNotFound
	}
	d, err := tx.Deployment(j.DeploymentID)
	if err != nil {
		return err
	}
	p.PoolID, p.DeploymentID, p.Stack = j.PoolID, d.ID, d.Stack
	return nil
}

func (s *Service) since(t time.Time) time.Duration { return s.now().Sub(t) }

// need refuses principals of another kind.
func (p Principal) need(kind Kind) error {
	if p.Kind != kind {
		return api.Errorf(http.StatusForbidden, "this needs a %s token, and the one given is a %s token", kind, p.Kind)
	}
	return nil
}

// needJob refuses everyone but the runner of one job.
func (p Principal) needJob(jobID string) error {
	if err := p.need(KindJob); err != nil {
		return err
	}
	if p.JobID != jobID {
		return api.Errorf(http.StatusForbidden, "the token belongs to another job")
	}
	return nil
}
