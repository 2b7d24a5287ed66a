package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

func ref(name string) control.StackRef {
	return control.StackRef{Organization: Organization, Project: "shop", Stack: name}
}

func testVersions(_ *testing.T, s *suite) {
	s.add("a1", ref("a"), "")
	s.add("b1", ref("b"), "")
	s.add("a2", ref("a"), "p1")
	s.view(func(tx control.Tx) error {
		d, err := tx.DeploymentByVersion(ref("a"), 2)
		s.equal("deployment", d, control.Deployment{
			ID: "a2", Stack: ref("a"), Version: 2, Status: api.StatusNotStarted, Operation: api.OperationUpdate, PoolID: "p1",
			RequestedBy: user, Request: []byte("{}"), Created: Start.Add(3 * time.Millisecond), Modified: Start.Add(3 * time.Millisecond),
		})
		b, bErr := tx.LatestVersion(ref("b"))
		s.equal("latest version of the other stack", b, int64(1))
		same, sameErr := tx.Deployment("a2")
		s.equal("by id", same, d)
		return errors.Join(err, bErr, sameErr)
	})
}

// testQueue checks who gets what, and in which order.
func testQueue(_ *testing.T, s *suite) {
	s.add("a1", ref("a"), "")
	s.add("a2", ref("a"), "p1")
	s.add("b1", ref("b"), "p1")
	s.add("c1", ref("c"), "p2")
	next := func(pool string, isDefault bool, want string) {
		s.t.Helper()
		s.view(func(tx control.Tx) error {
			d, err := tx.NextFor(Organization, pool, isDefault)
			if want == "" {
				s.is(fmt.Sprintf("NextFor(%s)", pool), err, control.ErrNotFound)
				return nil
			}
			s.equal(fmt.Sprintf("NextFor(%s, %v)", pool, isDefault), d.ID, want)
			return err
		})
	}
	move := func(id string, from, to api.Status) {
		s.t.Helper()
		s.update(func(tx control.Tx) error { return tx.SetStatus(id, from, to) })
	}
	next("p1", true, "a1")  // the default pool takes what names none, oldest first
	next("p1", false, "b1") // another pool only its own, and a2 waits for a1
	next("p2", false, "c1")
	next("p3", false, "")
	move("a1", api.StatusNotStarted, api.StatusAccepted)
	next("p1", true, "b1") // a1 is active, a2 waits
	move("b1", api.StatusNotStarted, api.StatusSkipped)
	next("p1", true, "")
	move("a1", api.StatusAccepted, api.StatusFailed)
	next("p1", true, "a2")
	s.view(func(tx control.Tx) error {
		d, err := tx.NextOf(ref("a"))
		s.equal("NextOf", d.ID, "a2")
		depth, depthErr := tx.QueueDepth()
		s.equal("QueueDepth", depth, int64(2))
		return errors.Join(err, depthErr)
	})
}

func testOneActive(t *testing.T, s *suite) {
	s.add("a1", ref("a"), "")
	s.add("a2", ref("a"), "")
	s.update(func(tx control.Tx) error { return tx.SetStatus("a1", api.StatusNotStarted, api.StatusAccepted) })
	set := func(id string, from, to api.Status) error {
		return s.store.Update(t.Context(), func(tx control.Tx) error { return tx.SetStatus(id, from, to) })
	}
	s.is("SetStatus from a status that is past", set("a1", api.StatusNotStarted, api.StatusAccepted), control.ErrConflict)
	s.is("SetStatus of a second active one", set("a2", api.StatusNotStarted, api.StatusAccepted), control.ErrConflict)
}

func testLists(_ *testing.T, s *suite) {
	for i := range 5 {
		s.add(fmt.Sprint("d", i+1), stack, "")
	}
	s.update(func(tx control.Tx) error { return tx.SetStatus("d2", api.StatusNotStarted, api.StatusSkipped) })
	list := func(q control.ListQuery, want ...string) {
		s.t.Helper()
		s.view(func(tx control.Tx) error {
			page, total, err := tx.ListDeployments(stack, q)
			var ids []string
			for _, d := range page {
				ids = append(ids, d.ID)
			}
			s.equal(fmt.Sprintf("%+v", q), ids, want)
			s.equal("total", total, int64(5))
			return err
		})
	}
	list(control.ListQuery{Page: 1, PageSize: 2}, "d5", "d4")
	list(control.ListQuery{Page: 3, PageSize: 2}, "d1")
	list(control.ListQuery{Page: 1, PageSize: 10, Sort: "created", Asc: true}, "d1", "d2", "d3", "d4", "d5")
	list(control.ListQuery{Page: 1, PageSize: 1, Sort: "status"}, "d2")
	s.view(func(tx control.Tx) error {
		_, _, err := tx.ListDeployments(stack, control.ListQuery{Page: 1, PageSize: 1, Sort: "id; --"})
		if err == nil {
			s.t.Error("an unknown order was accepted")
		}
		return nil
	})
}

func testCancel(_ *testing.T, s *suite) {
	s.add("d1", stack, "")
	s.advance(time.Second)
	first := s.clock()
	for range 2 {
		s.update(func(tx control.Tx) error { return tx.RequestCancel("d1") })
		s.advance(time.Second)
	}
	s.view(func(tx control.Tx) error {
		d, err := tx.Deployment("d1")
		s.equal("cancel requested", d.CancelRequested, first)
		return err
	})
}

func testJobs(t *testing.T, s *suite) {
	s.update(func(tx control.Tx) error {
		return tx.AddPool(control.Pool{ID: "p1", Organization: Organization, Name: "one"})
	})
	s.add("d1", stack, "")
	want := s.addJob("j1", "d1", "Setup", "Get source")
	twice := s.store.Update(t.Context(), func(tx control.Tx) error {
		return tx.AddJob(control.Job{ID: "j2", DeploymentID: "d1", Status: api.StatusAccepted})
	})
	s.is("AddJob of a second job that lives", twice, control.ErrConflict)

	s.advance(time.Second)
	want.Confirmed = s.clock()
	want.Status, want.Lost, want.Started, want.Ended = api.StatusFailed, true, s.clock(), s.clock()
	want.Steps[1].Status, want.Steps[1].Started, want.Steps[1].Modified = api.StepFailed, s.clock(), s.clock()
	s.update(func(tx control.Tx) error { return errors.Join(tx.SetJob(want), tx.SetStep("j1", 1, want.Steps[1])) })
	s.view(func(tx control.Tx) error {
		j, err := tx.Job("j1")
		s.equal("job", j, want)
		same, sameErr := tx.JobOf("d1")
		s.equal("job of the deployment", same, want)
		p, poolErr := tx.Pool(Organization, "p1")
		s.equal("last deployment of the pool", p.LastDeployment, Start.Add(time.Millisecond))
		return errors.Join(err, sameErr, poolErr)
	})
}

func testSilent(_ *testing.T, s *suite) {
	s.add("d1", ref("a"), "")
	s.add("d2", ref("b"), "")
	s.add("d3", ref("c"), "")
	s.addJob("j1", "d1", "Setup")
	s.addJob("j2", "d2", "Setup")
	ended := s.addJob("j3", "d3", "Setup")
	ended.Ended = s.clock()
	s.add("d4", ref("d"), "")
	s.addJob("j4", "d4", "Setup")
	s.advance(time.Minute)
	first := s.clock()
	s.update(func(tx control.Tx) error { return errors.Join(tx.Beat("j1"), tx.Beat("j2"), tx.SetJob(ended)) })
	s.advance(time.Minute)
	s.update(func(tx control.Tx) error { return tx.Beat("j2") })
	want := func(confirmed bool, before, after time.Time, ids ...string) {
		s.t.Helper()
		s.view(func(tx control.Tx) error {
			silent, err := tx.SilentJobs(confirmed, before, after)
			var got []string
			for _, j := range silent {
				s.equal("steps of "+j.ID, len(j.Steps), 1)
				got = append(got, j.ID)
			}
			s.equal(fmt.Sprintf("SilentJobs(%v, %v, %v)", confirmed, before, after), got, ids)
			return err
		})
	}
	now := s.clock()
	want(true, now, now, "j1")
	want(false, now, now, "j4")
	want(true, first, first, "j2") // a beat of the future
	want(true, first, now)
	s.view(func(tx control.Tx) error {
		j, err := tx.Job("j2")
		s.equal("confirmed", j.Confirmed, first) // by the first beat, and once
		s.equal("last beat", j.LastBeat, now)
		return err
	})
}

// testDissolved ends a job that was not confirmed: it is as if it had never been
// one of the deployment, which may have another.
func testDissolved(_ *testing.T, s *suite) {
	s.add("d1", stack, "")
	gone := s.addJob("j1", "d1", "Setup")
	gone.Lost, gone.Status, gone.Ended = true, api.StatusFailed, s.clock()
	s.update(func(tx control.Tx) error { return tx.SetJob(gone) })
	s.view(func(tx control.Tx) error {
		_, err := tx.JobOf("d1")
		s.is("JobOf of a deployment with a dissolved job", err, control.ErrNotFound)
		same, err := tx.Job("j1")
		s.equal("the dissolved job", same, gone)
		return err
	})
	next := s.addJob("j2", "d1", "Setup")
	s.view(func(tx control.Tx) error {
		j, err := tx.JobOf("d1")
		s.equal("JobOf", j, next)
		return err
	})
}

func testLogs(t *testing.T, s *suite) {
	s.add("d1", stack, "")
	s.addJob("j1", "d1", "Setup", "Get source")
	for _, c := range []control.LogChunk{{First: 0, Count: 3, Payload: []byte("a")}, {First: 3, Count: 2, Payload: []byte{0, 255}}, {First: 5, Count: 1, Payload: []byte("c")}} {
		s.update(func(tx control.Tx) error { return tx.AppendLog("j1", 1, c) })
	}
	for _, first := range []int64{5, 7} {
		err := s.store.Update(t.Context(), func(tx control.Tx) error {
			return tx.AppendLog("j1", 1, control.LogChunk{First: first, Count: 1, Payload: []byte("x")})
		})
		s.is(fmt.Sprintf("AppendLog at %d", first), err, control.ErrConflict)
	}
	s.view(func(tx control.Tx) error {
		for from, want := range map[int64][]int64{0: {0, 3, 5}, 2: {0, 3, 5}, 3: {3, 5}, 5: {5}, 9: {5}} {
			var got []int64
			err := tx.LogChunks("j1", 1, from, func(c control.LogChunk) bool {
				got = append(got, c.First)
				return true
			})
			if err != nil {
				return err
			}
			s.equal(fmt.Sprintf("chunks from %d", from), got, want)
		}
		seen := 0
		err := tx.LogChunks("j1", 1, 3, func(c control.LogChunk) bool {
			seen++
			s.equal("chunk", c, control.LogChunk{First: 3, Count: 2, Payload: []byte{0, 255}})
			return false
		})
		s.equal("chunks until told to stop", seen, 1)
		none := tx.LogChunks("j1", 0, 0, func(control.LogChunk) bool {
			s.t.Error("a step without a log has a chunk")
			return true
		})
		c, cursorErr := tx.LogCursor("j1", 1)
		s.equal("cursor", c, control.LogCursor{Lines: 6, LastBeat: s.clock()})
		_, noStep := tx.LogCursor("j1", 2)
		s.is("LogCursor of a step that is not there", noStep, control.ErrNotFound)
		return errors.Join(err, none, cursorErr)
	})
}
