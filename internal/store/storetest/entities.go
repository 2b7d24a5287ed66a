package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/control"
)

func testOrganizations(_ *testing.T, s *suite) {
	s.update(func(tx control.Tx) error {
		id, err := tx.DefaultPool(Organization)
		s.equal("default pool at first", id, "")
		return errors.Join(err, tx.SetDefaultPool(Organization, "p1"), tx.EnsureOrganization(Organization))
	})
	s.view(func(tx control.Tx) error {
		id, err := tx.DefaultPool(Organization)
		s.equal("default pool", id, "p1")
		return err
	})
}

func testTokens(_ *testing.T, s *suite) {
	hash := control.TokenHash{1, 2, 3}
	s.update(func(tx control.Tx) error {
		has, err := tx.HasUsers()
		s.equal("HasUsers", has, true)
		return errors.Join(err, tx.AddToken(control.Token{Hash: hash, Kind: control.KindUser, Organization: Organization, UserID: user.ID}))
	})
	s.view(func(tx control.Tx) error {
		k, err := tx.Token(hash)
		s.equal("token", k, control.Token{Hash: hash, Kind: control.KindUser, Organization: Organization, UserID: user.ID, Created: Start})
		u, userErr := tx.User(user.ID)
		s.equal("user", u, user)
		return errors.Join(err, userErr)
	})
}

func testPools(_ *testing.T, s *suite) {
	hash := control.TokenHash{9}
	s.update(func(tx control.Tx) error {
		return errors.Join(
			tx.AddPool(control.Pool{ID: "p1", Organization: Organization, Name: "one", Description: "the first"}),
			tx.AddToken(control.Token{Hash: hash, Kind: control.KindPool, Organization: Organization, PoolID: "p1"}),
			tx.SeeAgent("p1", control.AgentInfo{Hostname: "h"}))
	})
	s.advance(time.Second)
	s.update(func(tx control.Tx) error {
		s.is("AddPool of a taken name", tx.AddPool(control.Pool{ID: "p3", Organization: Organization, Name: "one"}), control.ErrConflict)
		return errors.Join(
			tx.AddPool(control.Pool{ID: "p2", Organization: Organization, Name: "two"}),
			tx.SetPool(control.Pool{ID: "p1", Name: "uno", Description: "renamed"}))
	})
	s.add("d1", stack, "p1")
	s.add("d2", stack, "p2")
	s.update(func(tx control.Tx) error {
		s.is("SetPool to a taken name", tx.SetPool(control.Pool{ID: "p2", Name: "uno"}), control.ErrConflict)
		pools, err := tx.Pools(Organization)
		s.equal("pools", pools, []control.Pool{
			{ID: "p1", Organization: Organization, Name: "uno", Description: "renamed", Created: Start, LastSeen: Start},
			{ID: "p2", Organization: Organization, Name: "two", Created: Start.Add(time.Second)},
		})
		_, foreign := tx.Pool("other", "p1")
		s.is("Pool of another organisation", foreign, control.ErrNotFound)
		using, useErr := tx.PoolDeployments("p1")
		if len(using) != 1 || using[0].ID != "d1" {
			s.t.Errorf("PoolDeployments = %v, want d1", using)
		}
		if err := errors.Join(err, useErr, tx.DeletePool("p1")); err != nil {
			return err
		}
		_, gone := tx.Token(hash)
		s.is("the token of a deleted pool", gone, control.ErrNotFound)
		agents, err := tx.Agents("p1")
		s.equal("agents of a deleted pool", len(agents), 0)
		return err
	})
}

func testAgents(_ *testing.T, s *suite) {
	first := control.AgentInfo{Hostname: "a", Pid: "1", IP: "192.0.2.1", Platform: "linux/amd64", Version: "1"}
	second := control.AgentInfo{Hostname: "b", Pid: "1"}
	s.update(func(tx control.Tx) error {
		return errors.Join(tx.AddPool(control.Pool{ID: "p1", Organization: Organization, Name: "one"}), tx.SeeAgent("p1", first), tx.SeeAgent("p1", second))
	})
	s.advance(time.Minute)
	first.Version = "2"
	s.update(func(tx control.Tx) error { return tx.SeeAgent("p1", first) })
	s.update(func(tx control.Tx) error {
		agents, err := tx.Agents("p1")
		s.equal("agents", agents, []control.Agent{
			{PoolID: "p1", AgentInfo: first, LastSeen: Start.Add(time.Minute)},
			{PoolID: "p1", AgentInfo: second, LastSeen: Start},
		})
		return errors.Join(err, tx.ForgetAgents(Start.Add(time.Second)))
	})
	s.view(func(tx control.Tx) error {
		agents, err := tx.Agents("p1")
		s.equal("agents after those before were forgotten", len(agents), 1)
		p, poolErr := tx.Pool(Organization, "p1")
		s.equal("last seen of the pool", p.LastSeen, Start.Add(time.Minute))
		return errors.Join(err, poolErr)
	})
}

func testSettings(_ *testing.T, s *suite) {
	for i, body := range []string{`{"a":1}`, `{"b":2}`} {
		s.update(func(tx control.Tx) error {
			version, err := tx.SaveSettings(stack, []byte(body))
			s.equal("version", version, int64(i+1))
			return err
		})
		s.view(func(tx control.Tx) error {
			got, version, err := tx.Settings(stack)
			s.equal("settings", string(got), body)
			s.equal("version", version, int64(i+1))
			return err
		})
	}
	s.add("d1", stack, "") // a stack that settings made known counts its deployments from 1
	s.view(func(tx control.Tx) error {
		version, err := tx.LatestVersion(stack)
		s.equal("latest version", version, int64(1))
		return err
	})
}
