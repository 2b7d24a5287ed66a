package control

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

func userInfo(u User) api.UserInfo {
	return api.UserInfo{Name: u.Name, GithubLogin: u.Name, Email: u.Email}
}

// jobsOf returns the jobs of a deployment as the API shows them, none before
// it is claimed, and the pool that claimed it.
func jobsOf(tx Tx, d Deployment) (jobs []api.DeploymentJob, pool string, err error) {
	j, err := tx.JobOf(d.ID)
	if errors.Is(err, ErrNotFound) {
		return nil, d.PoolID, nil
	}
	if err != nil {
		return nil, "", err
	}
	out := api.DeploymentJob{Status: j.Status, Started: orNil(j.Started), LastUpdated: orNil(j.Modified), Steps: []api.StepRun{}}
	for _, s := range j.Steps {
		out.Steps = append(out.Steps, api.StepRun{Name: s.Name, Status: s.Status, Started: orNil(s.Started), LastUpdated: orNil(s.Modified)})
	}
	return []api.DeploymentJob{out}, j.PoolID, nil
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// snapshot returns a row of a list.
func snapshot(tx Tx, d Deployment) (api.ListDeploymentSnapshot, error) {
	row := api.ListDeploymentSnapshot{
		ID: d.ID, Version: d.Version, Status: d.Status, PulumiOperation: d.Operation,
		Created: d.Created, Modified: d.Modified, Initiator: d.Initiator, RequestedBy: userInfo(d.RequestedBy),
		ProjectName: d.Stack.Project, StackName: d.Stack.Stack,
		Updates: []api.DeploymentNestedUpdate{},
	}
	jobs, poolID, err := jobsOf(tx, d)
	if err != nil {
		return row, err
	}
	row.Jobs = append([]api.DeploymentJob{}, jobs...)
	if poolID == "" {
		return row, nil
	}
	p, err := tx.Pool(d.Stack.Organization, poolID)
	if errors.Is(err, ErrNotFound) { // the pool is gone, its deployments are not
		p = Pool{ID: poolID}
	} else if err != nil {
		return row, err
	}
	row.AgentPool = &api.ListDeploymentSnapshotAgentPool{ID: p.ID, Name: p.Name}
	return row, nil
}

// configuration returns what a deployment was asked to do, without its secrets.
func configuration(req api.CreateDeploymentRequest) *api.DeploymentConfiguration {
	out := &api.DeploymentConfiguration{EnvironmentVariables: []api.EnvironmentVariable{}}
	if o := req.OperationContext; o != nil {
		for _, name := range slices.Sorted(maps.Keys(o.EnvironmentVariables)) {
			v := o.EnvironmentVariables[name]
			one := api.EnvironmentVariable{Name: name, Secret: v.Secret || len(v.Ciphertext) > 0}
			if !one.Secret {
				one.Value = v.Value
			}
			out.EnvironmentVariables = append(out.EnvironmentVariables, one)
		}
	}
	if s := req.SourceContext; s != nil && s.Git != nil {
		out.Source = &api.DeploymentSource{Git: &api.DeploymentSourceGit{
			RepoURL: s.Git.RepoURL, Branch: s.Git.Branch, Commit: s.Git.Commit, RepoDir: s.Git.RepoDir,
		}}
	} else if s != nil && s.Template != nil {
		out.Source = &api.DeploymentSource{Template: &api.DeploymentSourceTemplate{SourceURL: s.Template.SourceURL}}
	}
	return out
}
