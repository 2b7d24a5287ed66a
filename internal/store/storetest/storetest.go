// Package storetest is the conformance suite of control.Store: an
// implementation passes it or is not one. It runs on SQLite always, and on
// Postgres once there is one.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// Start is the time at which the clock of a store under test stands.
var Start = time.Date(2026, 11, 23, 10, 0, 0, 42, time.UTC)

// Organization is the organisation that the suite makes.
const Organization = "acme"

var (
	stack = control.StackRef{Organization: Organization, Project: "shop", Stack: "prod"}
	user  = control.User{ID: "u1", Name: "ada", Email: "ada@example.org"}
)

// Run checks that the stores made by open, which are empty and whose clock now
// is, keep the contract. open arranges for them to be closed.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) control.Store) {
	for name, test := range map[string]func(*testing.T, *suite){
		"AnUpdateIsWholeOrNot":        testAtomic,
		"UpdatesAtTheSameTime":        testConcurrent,
		"APanicHurtsItsUpdateOnly":    testPanic,
		"AnEndedContextWritesNothing": testContext,
		"AViewCannotWrite":            testView,
		"OneClockStampPerTransaction": testClock,
		"Organizations":               testOrganizations,
		"UsersAndTokens":              testTokens,
		"Pools":                       testPools,
		"Agents":                      testAgents,
		"VersionsCountPerStack":       testVersions,
		"TheQueue":                    testQueue,
		"OneActiveDeploymentOfAStack": testOneActive,
		"Lists":                       testLists,
		"CancelIsLatched":             testCancel,
		"JobsAndSteps":                testJobs,
		"SilentJobs":                  testSilent,
		"DissolvedJobs":               testDissolved,
		"Logs":                        testLogs,
		"Settings":                    testSettings,
		"WhatIsNotThereIsErrNotFound": testNotFound,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &suite{t: t, now: Start}
			s.store = open(t, s.clock)
			s.update(func(tx control.Tx) error {
				return errors.Join(tx.EnsureOrganization(Organization), tx.AddUser(user))
			})
			test(t, s)
		})
	}
}

type suite struct {
	t     *testing.T
	store control.Store
	mu    sync.Mutex
	now   time.Time
}

func (s *suite) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *suite) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *suite) update(f func(control.Tx) error) {
	s.t.Helper()
	if err := s.store.Update(s.t.Context(), f); err != nil {
		s.t.Fatalf("Update: %v", err)
	}
}

func (s *suite) view(f func(control.Tx) error) {
	s.t.Helper()
	if err := s.store.View(s.t.Context(), f); err != nil {
		s.t.Fatalf("View: %v", err)
	}
}

func (s *suite) is(what string, err, want error) {
	s.t.Helper()
	if !errors.Is(err, want) {
		s.t.Errorf("%s = %v, want %v", what, err, want)
	}
}

func (s *suite) equal(what string, got, want any) {
	s.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

// add adds a deployment of a stack.
func (s *suite) add(id string, ref control.StackRef, pool string) {
	s.t.Helper()
	s.advance(time.Millisecond)
	s.update(func(tx control.Tx) error {
		_, err := tx.AddDeployment(control.Deployment{ID: id, Stack: ref, Operation: api.OperationUpdate, PoolID: pool, RequestedBy: user, Request: []byte("{}")})
		return err
	})
}

func (s *suite) addJob(id, deployment string, steps ...string) control.Job {
	s.t.Helper()
	j := control.Job{
		ID: id, DeploymentID: deployment, RunID: "r-" + id, PoolID: "p1", Status: api.StatusAccepted,
		Agent:   control.AgentInfo{Hostname: "h", IP: "192.0.2.1", Pid: "1", Platform: "linux/amd64", Version: "v"},
		Claimed: s.clock(), Modified: s.clock(), LastBeat: s.clock(),
	}
	for _, name := range steps {
		j.Steps = append(j.Steps, control.StepState{Name: name, Status: api.StepNotStarted})
	}
	s.update(func(tx control.Tx) error { return tx.AddJob(j) })
	return j
}

var errWanted = errors.New("wanted")

func testAtomic(t *testing.T, s *suite) {
	err := s.store.Update(t.Context(), func(tx control.Tx) error {
		if err := tx.AddPool(control.Pool{ID: "p1", Organization: Organization, Name: "one"}); err != nil {
			return err
		}
		return errWanted
	})
	s.is("Update", err, errWanted)
	s.view(func(tx control.Tx) error {
		pools, err := tx.Pools(Organization)
		s.equal("pools after a failed update", len(pools), 0)
		return err
	})
}

// testConcurrent mixes updates that work with updates that fail. However an
// implementation shares commits between them, they must not touch each other.
func testConcurrent(t *testing.T, s *suite) {
	const n = 200
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := s.store.Update(t.Context(), func(tx control.Tx) error {
				if err := tx.AddPool(control.Pool{ID: fmt.Sprint("p", i), Organization: Organization, Name: fmt.Sprint("pool", i)}); err != nil {
					return err
				}
				if i%3 == 0 {
					return errWanted
				}
				if i%3 == 1 { // a broken rule of the database itself
					return tx.AddPool(control.Pool{ID: fmt.Sprint("p", i), Organization: Organization, Name: "again"})
				}
				return nil
			})
			switch i % 3 {
			case 0:
				s.is("Update", err, errWanted)
			case 1:
				s.is("Update", err, control.ErrConflict)
			default:
				s.is("Update", err, nil)
			}
		})
	}
	wg.Wait()
	s.view(func(tx control.Tx) error {
		pools, err := tx.Pools(Organization)
		s.equal("pools", len(pools), n/3)
		return err
	})
}

func testPanic(t *testing.T, s *suite) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			err := s.store.Update(t.Context(), func(tx control.Tx) error {
				if err := tx.AddPool(control.Pool{ID: fmt.Sprint(i), Organization: Organization, Name: fmt.Sprint(i)}); err != nil {
					return err
				}
				if i == 7 {
					panic("a bug")
				}
				return nil
			})
			if (err != nil) != (i == 7) {
				t.Errorf("update %d = %v, want only number 7 to fail", i, err)
			}
		})
	}
	wg.Wait()
	s.view(func(tx control.Tx) error {
		pools, err := tx.Pools(Organization)
		s.equal("pools", len(pools), 19)
		return err
	})
}

func testContext(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancelCause(t.Context())
	err := s.store.Update(ctx, func(tx control.Tx) error {
		cancel(errWanted) // while the transaction runs
		return tx.AddPool(control.Pool{ID: "p1", Organization: Organization, Name: "one"})
	})
	s.is("Update", err, context.Canceled)
	s.is("View", s.store.View(ctx, func(control.Tx) error { return nil }), context.Canceled)
	s.view(func(tx control.Tx) error {
		pools, err := tx.Pools(Organization)
		s.equal("pools", len(pools), 0)
		return err
	})
}

func testView(t *testing.T, s *suite) {
	err := s.store.View(t.Context(), func(tx control.Tx) error {
		return tx.AddPool(control.Pool{ID: "p1", Organization: Organization, Name: "one"})
	})
	if err == nil {
		t.Error("a view wrote")
	}
}

func testClock(_ *testing.T, s *suite) {
	s.update(func(tx control.Tx) error {
		first := tx.Now()
		s.advance(time.Hour)
		s.equal("Now() later in the same transaction", tx.Now(), first)
		return tx.AddPool(control.Pool{ID: "p1", Organization: Organization, Name: "one"})
	})
	s.view(func(tx control.Tx) error {
		p, err := tx.Pool(Organization, "p1")
		s.equal("created", p.Created, Start)
		return err
	})
}

func testNotFound(_ *testing.T, s *suite) {
	s.update(func(tx control.Tx) error {
		_, err := tx.User("x")
		s.is("User", err, control.ErrNotFound)
		_, err = tx.Token(control.TokenHash{})
		s.is("Token", err, control.ErrNotFound)
		_, err = tx.Pool(Organization, "x")
		s.is("Pool", err, control.ErrNotFound)
		s.is("SetPool", tx.SetPool(control.Pool{ID: "x"}), control.ErrNotFound)
		s.is("DeletePool", tx.DeletePool("x"), control.ErrNotFound)
		s.is("SeeAgent", tx.SeeAgent("x", control.AgentInfo{}), control.ErrNotFound)
		_, err = tx.Deployment("x")
		s.is("Deployment", err, control.ErrNotFound)
		_, err = tx.DeploymentByVersion(stack, 1)
		s.is("DeploymentByVersion", err, control.ErrNotFound)
		_, _, err = tx.ListDeployments(stack, control.ListQuery{Page: 1, PageSize: 1})
		s.is("ListDeployments", err, control.ErrNotFound)
		_, err = tx.LatestVersion(stack)
		s.is("LatestVersion", err, control.ErrNotFound)
		_, err = tx.NextFor(Organization, "x", true)
		s.is("NextFor", err, control.ErrNotFound)
		_, err = tx.NextOf(stack)
		s.is("NextOf", err, control.ErrNotFound)
		s.is("RequestCancel", tx.RequestCancel("x"), control.ErrNotFound)
		_, err = tx.Job("x")
		s.is("Job", err, control.ErrNotFound)
		_, err = tx.JobOf("x")
		s.is("JobOf", err, control.ErrNotFound)
		s.is("SetJob", tx.SetJob(control.Job{ID: "x"}), control.ErrNotFound)
		s.is("SetStep", tx.SetStep("x", 0, control.StepState{}), control.ErrNotFound)
		s.is("Beat", tx.Beat("x"), control.ErrNotFound)
		_, err = tx.LogCursor("x", 0)
		s.is("LogCursor", err, control.ErrNotFound)
		_, _, err = tx.Settings(stack)
		s.is("Settings", err, control.ErrNotFound)
		return nil
	})
}
