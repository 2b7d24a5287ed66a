package control_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

func TestStepsMoveOnlyForward(t *testing.T) {
	t.Parallel()
	type move struct {
		step   int
		status api.StepStatus
		code   int // 0 for accepted
	}
	for name, moves := range map[string][]move{
		"a repeat has no effect":                    {{0, "running", 0}, {0, "running", 0}, {0, "succeeded", 0}, {0, "succeeded", 0}},
		"a step that begins implies Setup":          {{1, "running", 0}, {0, "succeeded", 0}},
		"also when Setup was running":               {{0, "running", 0}, {1, "running", 0}, {0, "succeeded", 0}},
		"Setup may end without having begun":        {{0, "succeeded", 0}, {1, "running", 0}},
		"other steps may not":                       {{1, "succeeded", 409}},
		"no step begins before those before it end": {{1, "running", 0}, {2, "running", 409}},
		"no step is left out":                       {{1, "running", 0}, {1, "succeeded", 0}, {3, "running", 409}},
		"a step does not run again":                 {{1, "running", 0}, {1, "succeeded", 0}, {1, "running", 409}},
		"a step may fail without having run":        {{1, "running", 0}, {1, "succeeded", 0}, {2, "failed", 0}},
		"a failed step ends the job":                {{1, "running", 0}, {1, "failed", 0}, {2, "running", 410}, {1, "failed", 0}},
		"what failed did not succeed":               {{1, "running", 0}, {1, "failed", 0}, {1, "succeeded", 409}},
		"there is no such step":                     {{5, "running", 404}, {-1, "running", 404}},
		"not-started is no report":                  {{0, "not-started", 400}, {0, "cancelled", 400}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			pool := p.pool(t, "one")
			p.create(t, stack, simple)
			_, job := p.claim(t, pool)
			for i, m := range moves {
				err := p.ReportStep(t.Context(), job, job.JobID, m.step, m.status)
				if m.code == 0 && err != nil {
					t.Errorf("move %d, step %d to %s: %v", i, m.step, m.status, err)
				}
				if m.code != 0 {
					wantCode(t, err, m.code)
				}
			}
		})
	}
}

// TestARepeatHasNoEffect sends every report and log batch of a job a second
// time, as a runner does whose answers were lost, while the job runs and after
// its end.
func TestARepeatHasNoEffect(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	id := p.create(t, stack, simple)
	work, job := p.claim(t, pool)
	var sent []func() error
	again := func() { // changes nothing that anybody can see
		t.Helper()
		before := try(p.Deployment(t.Context(), stack, id))(t)
		log := try(p.StreamLogs(t.Context(), stack, id, ""))(t)
		for i, call := range sent {
			if err := call(); err != nil {
				t.Errorf("repeat of call %d: %v", i, err)
			}
		}
		after := try(p.Deployment(t.Context(), stack, id))(t)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the repeats changed the deployment:\n%s", diff)
		}
		if diff := cmp.Diff(log, try(p.StreamLogs(t.Context(), stack, id, ""))(t)); diff != "" {
			t.Errorf("the repeats changed the log:\n%s", diff)
		}
	}
	for step := range simpleSteps {
		// Only the last report of a step is repeated: the runner had its answer
		// to the one before when it sent this one.
		must(t, p.ReportStep(t.Context(), job, job.JobID, step, api.StepRunning))
		logs := func() error { return p.AppendLog(t.Context(), job, job.JobID, step, lines(0, 3)) }
		must(t, logs())
		sent = append(sent, logs)
		ends := func() error { return p.ReportStep(t.Context(), job, job.JobID, step, api.StepSucceeded) }
		must(t, ends())
		sent = append(sent, ends)
		again()
	}
	job = try(p.Authenticate(t.Context(), work.JobToken))(t)
	again()
	if n := counterValue(t, p, "longshore_server_deployments_ended_total"); n != 1 {
		t.Errorf("deployments ended = %v, want 1", n)
	}
}

func TestWhatTheAPIShowsOfAJob(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	id := try(p.CreateDeployment(t.Context(), p.admin, stack, request(t, `{"operation":"update",
		"sourceContext":{"git":{"repoUrl":"https://git.example/shop.git","commit":"abc"}},
		"operationContext":{"environmentVariables":{"B":"plain","A":{"secret":"hidden"}},"preRunCommands":["true"]}}`), "the CLI"))(t).ID
	if d := try(p.Deployment(t.Context(), stack, id))(t); d.Jobs != nil || d.Status != api.StatusNotStarted {
		t.Errorf("before the claim: jobs %v, status %s, want none and not-started", d.Jobs, d.Status)
	}
	_, job := p.claim(t, pool)
	if got := p.status(t, stack, id); got != api.StatusAccepted {
		t.Errorf("status after the claim = %s, want accepted", got)
	}
	must(t, p.ReportStep(t.Context(), job, job.JobID, 0, api.StepRunning))
	p.create(t, stack, simple)

	d := try(p.DeploymentByVersion(t.Context(), stack, 1))(t)
	if d.ID != id || d.Status != api.StatusRunning || d.LatestVersion != 2 || d.Initiator != "the CLI" || d.RequestedBy.Name != "admin" {
		t.Errorf("DeploymentByVersion(1) = %+v", d)
	}
	if len(d.Jobs) != 1 || len(d.Jobs[0].Steps) != 6 || d.Jobs[0].Started == nil || d.Jobs[0].Steps[0].Status != api.StepRunning ||
		d.Jobs[0].Steps[0].Started == nil || d.Jobs[0].Steps[1].Started != nil || d.Jobs[0].Steps[4].Name != "Pre-run command 1" {
		t.Errorf("jobs = %+v", d.Jobs)
	}
	env := d.Configuration.EnvironmentVariables
	if len(env) != 2 || env[0] != (api.EnvironmentVariable{Name: "A", Secret: true}) || env[1] != (api.EnvironmentVariable{Name: "B", Value: "plain"}) {
		t.Errorf("configuration = %+v, want A without its value and B", env)
	}
	list := try(p.Deployments(t.Context(), stack, control.ListQuery{PageSize: 1}))(t)
	if list.Total != 2 || len(list.Deployments) != 1 || list.Deployments[0].Version != 2 || list.ItemsPerPage != 1 {
		t.Errorf("Deployments() = %+v, want the newest of two", list)
	}
	list = try(p.Deployments(t.Context(), stack, control.ListQuery{Page: 1, PageSize: 100, Sort: "created", Asc: true}))(t)
	if len(list.Deployments) != 2 || list.Deployments[0].AgentPool == nil || list.Deployments[0].AgentPool.Name != "one" {
		t.Errorf("Deployments(asc) = %+v, want the oldest first, with the pool that claimed it", list)
	}
	for _, q := range []control.ListQuery{{PageSize: 101}, {PageSize: -1}, {Page: -1}, {Sort: "name; DROP TABLE"}} {
		_, err := p.Deployments(t.Context(), stack, q)
		wantCode(t, err, 400)
	}
	_, err := p.Deployments(t.Context(), control.StackRef{Organization: org, Project: "shop", Stack: "unknown"}, control.ListQuery{})
	wantCode(t, err, 404)
	_, err = p.Deployments(t.Context(), control.StackRef{Organization: "foreign", Project: "shop", Stack: "prod"}, control.ListQuery{})
	wantCode(t, err, 404)
	_, err = p.Deployment(t.Context(), control.StackRef{Organization: org, Project: "shop", Stack: "dev"}, id)
	wantCode(t, err, 404)
	_, err = p.DeploymentByVersion(t.Context(), stack, 3)
	wantCode(t, err, 404)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	p.create(t, stack, simple)
	id := p.create(t, control.StackRef{Organization: org, Project: "shop", Stack: "dev"}, simple)
	work, job := p.claim(t, pool)
	_, other := p.claim(t, pool)

	for _, token := range []string{"", "nonsense", "lsp-", "lsj-" + strings.Repeat("A", 43), work.JobToken + "x"} {
		_, err := p.Authenticate(t.Context(), token)
		wantCode(t, err, 401)
	}
	if again := try(p.Bootstrap(t.Context()))(t); again != "" {
		t.Error("Bootstrap() made a second user token")
	}
	user := control.Principal{Kind: control.KindUser, Organization: org}
	_, err := p.Poll(t.Context(), user, agent, 0)
	wantCode(t, err, 403)
	wantCode(t, p.Heartbeat(t.Context(), pool, job.JobID), 403)
	wantCode(t, p.Heartbeat(t.Context(), other, job.JobID), 403)
	wantCode(t, p.AppendLog(t.Context(), other, job.JobID, 0, api.LogBatch{}), 403)
	wantCode(t, p.ReportStep(t.Context(), other, job.JobID, 0, api.StepRunning), 403)
	_, err = p.JobDefinition(t.Context(), other, job.JobID, "x")
	wantCode(t, err, 403)
	second := p.pool(t, "two")
	_, err = p.RunnerStatus(t.Context(), second, id, 0)
	wantCode(t, err, 403)
	_, err = p.RunnerStatus(t.Context(), second, "nonsense", 0)
	wantCode(t, err, 404)
}

func TestAfterTheEndOfAJob(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	p.create(t, stack, simple)
	work, job := p.claim(t, pool)
	must(t, p.Heartbeat(t.Context(), job, job.JobID))
	must(t, p.ReportStep(t.Context(), job, job.JobID, 0, api.StepFailed))

	job = try(p.Authenticate(t.Context(), work.JobToken))(t)
	if !job.JobEnded {
		t.Error("JobEnded = false, want true")
	}
	wantCode(t, p.Heartbeat(t.Context(), job, job.JobID), 410)
	_, err := p.JobDefinition(t.Context(), job, job.JobID, work.JobToken)
	wantCode(t, err, 410)
	must(t, p.AppendLog(t.Context(), job, job.JobID, 0, lines(0, 2)))
	must(t, p.ReportStep(t.Context(), job, job.JobID, 0, api.StepFailed))

	p.clock.Advance(control.LateTail + time.Second)
	_, err = p.Authenticate(t.Context(), work.JobToken)
	wantCode(t, err, 401)
}

func TestASilentJobFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPlaneAt(t, dir, time.Now)
		pool := p.pool(t, "one")
		id := p.create(t, stack, simple)
		_, job := p.claim(t, pool)
		must(t, p.ReportStep(t.Context(), job, job.JobID, 1, api.StepRunning))
		must(t, p.AppendLog(t.Context(), job, job.JobID, 1, lines(0, 1)))
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()

		for range 5 { // forty minutes, with a heartbeat each eight
			time.Sleep(8 * time.Minute)
			must(t, p.Heartbeat(t.Context(), job, job.JobID))
		}
		if got := p.status(t, stack, id); got != api.StatusRunning {
			t.Errorf("status with heartbeats = %s, want running", got)
		}
		time.Sleep(11 * time.Minute)
		if got := p.status(t, stack, id); got != api.StatusFailed {
			t.Errorf("status after eleven silent minutes = %s, want failed", got)
		}
		log := try(p.StepLogs(t.Context(), stack, id, 0, 1, 0, 100))(t)
		if len(log.Lines) != 2 || !strings.Contains(log.Lines[1].Line, "no sign of life for 10m0s") || log.NextOffset != nil {
			t.Errorf("log = %+v, want a second line that says so, and the end", log)
		}
		wantCode(t, p.Heartbeat(t.Context(), job, job.JobID), 410)
		wantCode(t, p.ReportStep(t.Context(), job, job.JobID, 1, api.StepSucceeded), 410)
		wantCode(t, p.AppendLog(t.Context(), job, job.JobID, 1, lines(1, 1)), 410)
		if n := counterValue(t, p, "longshore_server_silent_jobs_total"); n != 1 {
			t.Errorf("silent jobs counted = %v, want 1", n)
		}
		cancel(errors.New("done"))
		must(t, <-ended)
		must(t, p.db.Close())
	})
}

func TestAServerThatWasDownBlamesNoJob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPlaneAt(t, dir, time.Now)
		pool := p.pool(t, "one")
		id := p.create(t, stack, simple)
		_, job := p.claim(t, pool)
		must(t, p.Heartbeat(t.Context(), job, job.JobID))
		time.Sleep(3 * time.Hour) // nobody runs
		must(t, p.db.Close())
		p.openAt(t, time.Now)
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		time.Sleep(9 * time.Minute)
		if got := p.status(t, stack, id); got != api.StatusAccepted {
			t.Errorf("status nine minutes after the start = %s, want accepted", got)
		}
		must(t, p.Heartbeat(t.Context(), job, job.JobID))
		time.Sleep(9 * time.Minute)
		if got := p.status(t, stack, id); got != api.StatusAccepted {
			t.Errorf("status nine minutes after a heartbeat = %s, want accepted", got)
		}
		time.Sleep(2 * time.Minute)
		if got := p.status(t, stack, id); got != api.StatusFailed {
			t.Errorf("status eleven minutes after the last heartbeat = %s, want failed", got)
		}
		cancel(errors.New("done"))
		must(t, <-ended)
		must(t, p.db.Close())
	})
}

func TestARestartLosesNothing(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	running, queued := p.create(t, stack, simple), p.create(t, stack, simple)
	work, job := p.claim(t, pool)
	must(t, p.ReportStep(t.Context(), job, job.JobID, 1, api.StepRunning))
	must(t, p.AppendLog(t.Context(), job, job.JobID, 1, lines(0, 3)))
	before := try(p.Deployment(t.Context(), stack, running))(t)

	p.reopen(t)
	if again := try(p.Bootstrap(t.Context()))(t); again != "" {
		t.Error("Bootstrap() made another user after a restart")
	}
	after := try(p.Deployment(t.Context(), stack, running))(t)
	if fmt.Sprintf("%+v", before.Jobs[0].Steps[1].Status) != fmt.Sprintf("%+v", after.Jobs[0].Steps[1].Status) || before.Status != after.Status || !before.Created.Equal(after.Created) {
		t.Errorf("after the restart %+v, before %+v", after, before)
	}
	job = try(p.Authenticate(t.Context(), work.JobToken))(t)
	must(t, p.AppendLog(t.Context(), job, job.JobID, 1, lines(3, 1)))
	if log := try(p.StepLogs(t.Context(), stack, running, 0, 1, 0, 100))(t); len(log.Lines) != 4 {
		t.Errorf("log has %d lines, want 4", len(log.Lines))
	}
	p.wantNoWork(t, pool)
	must(t, p.ReportStep(t.Context(), job, job.JobID, 1, api.StepFailed))
	if next, _ := p.claim(t, pool); next.DeploymentID != queued {
		t.Errorf("claim = %s, want %s", next.DeploymentID, queued)
	}
}

func TestTheDatabaseHoldsNoSecret(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	made := try(p.CreatePool(t.Context(), org, api.CreateOrgAgentPoolRequest{Name: "one"}))(t)
	pool := try(p.Authenticate(t.Context(), made.TokenValue))(t)
	const form = `{"operation":"update",
		"executorContext":{"executorImage":{"reference":"registry.example/x:1","credentials":{"username":"u","password":"sesame-image"}}},
		"sourceContext":{"git":{"repoUrl":"https://git.example/x.git","branch":"main","gitAuth":%s}},
		"operationContext":{"environmentVariables":{"A":{"secret":"sesame-a"},"B":{"isSecret":true,"value":"sesame-b"},"C":"in the clear"}}}`
	for i, auth := range []string{
		`{"accessToken":"sesame-token"}`,
		`{"basicAuth":{"userName":{"secret":"sesame-user"},"password":{"secret":"sesame-password"}}}`,
		`{"sshAuth":{"sshPrivateKey":"sesame-key","password":{"secret":"sesame-phrase"}}}`,
	} {
		p.create(t, control.StackRef{Organization: org, Project: "shop", Stack: fmt.Sprint("s", i)}, fmt.Sprintf(form, auth))
	}
	work, job := p.claim(t, pool)
	d := try(p.JobDefinition(t.Context(), job, job.JobID, work.JobToken))(t)
	if d.Env["A"] != "sesame-a" || d.Env["B"] != "sesame-b" || d.Env["LONGSHORE_GIT_TOKEN"] != "sesame-token" || d.Image.Credentials.Password.Value != "sesame-image" || d.Env["PULUMI_ACCESS_TOKEN"] != work.JobToken {
		t.Errorf("the definition lacks secrets: %v", d.Env)
	}
	if d.Architecture != "arm64" {
		t.Errorf("architecture = %s, want that of the agent", d.Architecture)
	}
	files := try(filepath.Glob(filepath.Join(p.dir, "*")))(t)
	if len(files) < 3 {
		t.Fatalf("files = %v, want the database, its WAL and the lock", files)
	}
	found := false
	for _, name := range files {
		text := string(try(os.ReadFile(name))(t))
		found = found || strings.Contains(text, "in the clear")
		for _, secret := range []string{"sesame", work.JobToken, made.TokenValue, p.token, work.JobToken[4:]} {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", filepath.Base(name), secret)
			}
		}
		if info := try(os.Stat(name))(t); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, want it private", filepath.Base(name), info.Mode())
		}
	}
	if !found {
		t.Error("no file holds the plain value, so this test looks in the wrong place")
	}
}

func TestCiphertexts(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	sealer := try(control.NewSealer(p.key))(t)
	body := func(sealed []byte) api.CreateDeploymentRequest {
		return api.CreateDeploymentRequest{Operation: api.OperationPreview, OperationContext: &api.OperationContextRequest{
			EnvironmentVariables: map[string]api.SecretValue{"A": {Secret: true, Ciphertext: sealed}},
		}}
	}
	good := try(sealer.Seal([]byte("sesame"), stack.String()))(t)
	try(p.CreateDeployment(t.Context(), p.admin, stack, body(good), ""))(t)
	work, job := p.claim(t, p.pool(t, "one"))
	if got := try(p.JobDefinition(t.Context(), job, job.JobID, work.JobToken))(t).Env["A"]; got != "sesame" {
		t.Errorf("A = %q, want the text that was sealed", got)
	}
	foreign := try(sealer.Seal([]byte("sesame"), "default/shop/dev"))(t)
	for name, bad := range map[string][]byte{"of another stack": foreign, "of nobody": []byte("12345678901234567890123456789012345"), "changed": append(good[:len(good)-1:len(good)-1], good[len(good)-1]^1)} {
		_, err := p.CreateDeployment(t.Context(), p.admin, stack, body(bad), "")
		wantCode(t, err, 400)
		if err != nil && !strings.HasPrefix(err.Error(), "operationContext.environmentVariables.A: ") {
			t.Errorf("%s: error %q does not name the field", name, err)
		}
	}
}
