package control_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/longshore-run/longshore/internal/control"
)

func TestBadRequests(t *testing.T) {
	t.Parallel()
	const git = `"repoUrl":"https://git.example/x.git","branch":"main"`
	for name, c := range map[string]struct{ body, want string }{
		"no operation":                  {`{}`, "operation: is missing, want one of update, preview"},
		"unknown operation":             {`{"operation":"deploy"}`, `operation: "deploy" is unknown`},
		"operation in both places":      {`{"operation":"update","operationContext":{"operation":"update"}}`, "operation: is given twice"},
		"unknown in the old place":      {`{"operationContext":{"operation":"x"}}`, "operationContext.operation: "},
		"branch and commit together":    {`{"operation":"update","sourceContext":{"git":{` + git + `,"commit":"abc"}}}`, "sourceContext.git: branch and commit exclude each other"},
		"neither branch nor commit":     {`{"operation":"update","sourceContext":{"git":{"repoUrl":"https://git.example/x.git"}}}`, "sourceContext.git: branch or commit is missing"},
		"no repoURL":                    {`{"operation":"update","sourceContext":{"git":{"branch":"main"}}}`, "sourceContext.git.repoUrl: is missing"},
		"blank repoURL":                 {`{"operation":"update","sourceContext":{"git":{"repoUrl":"  ","branch":"main"}}}`, "sourceContext.git.repoUrl: is missing"},
		"a password in the repoURL":     {`{"operation":"update","sourceContext":{"git":{"repoUrl":"https://u:sesame@git.example/x.git","branch":"main"}}}`, "sourceContext.git.repoUrl: holds a password"},
		"an option for a repoURL":       {`{"operation":"update","sourceContext":{"git":{"repoUrl":"--upload-pack=x","branch":"main"}}}`, "sourceContext.git.repoUrl: must not begin"},
		"a newline in the branch":       {`{"operation":"update","sourceContext":{"git":{"repoUrl":"https://git.example/x.git","branch":"a\nb"}}}`, "sourceContext.git.branch: holds a control"},
		"absolute repoDir":              {`{"operation":"update","sourceContext":{"git":{` + git + `,"repoDir":"/etc"}}}`, "sourceContext.git.repoDir: "},
		"repoDir that leaves":           {`{"operation":"update","sourceContext":{"git":{` + git + `,"repoDir":"a/../../b"}}}`, "leaves the repository"},
		"template path that leaves":     {`{"operation":"update","sourceContext":{"template":{"sourceUrl":"https://github.com/a/b/tree/main/%2e%2e/c"}}}`, "sourceContext.template.sourceUrl: "},
		"template without URL":          {`{"operation":"update","sourceContext":{"template":{}}}`, "sourceContext.template.sourceUrl: is missing"},
		"template with basic auth":      {`{"operation":"update","sourceContext":{"template":{"sourceUrl":"registry://x","gitAuth":{"basicAuth":{"userName":"a","password":"b"}}}}}`, "a template takes an accessToken only"},
		"two kinds of source":           {`{"operation":"update","sourceContext":{"git":{` + git + `},"template":{"sourceUrl":"registry://x"}}}`, "sourceContext: git, hg and template exclude"},
		"Mercurial":                     {`{"operation":"update","sourceContext":{"hg":{"repoUrl":"https://hg.example/x"}}}`, "sourceContext.hg: Mercurial is not supported"},
		"two kinds of auth":             {`{"operation":"update","sourceContext":{"git":{` + git + `,"gitAuth":{"accessToken":"a","sshAuth":{"sshPrivateKey":"k"}}}}}`, "gitAuth: accessToken, basicAuth and sshAuth exclude"},
		"basic auth without password":   {`{"operation":"update","sourceContext":{"git":{` + git + `,"gitAuth":{"basicAuth":{"userName":"a"}}}}}`, "gitAuth.basicAuth.password: is missing"},
		"an empty token":                {`{"operation":"update","sourceContext":{"git":{` + git + `,"gitAuth":{"accessToken":{"secret":""}}}}}`, "gitAuth.accessToken: is missing"},
		"SSH without key":               {`{"operation":"update","sourceContext":{"git":{` + git + `,"gitAuth":{"sshAuth":{}}}}}`, "gitAuth.sshAuth.sshPrivateKey: is missing"},
		"unknown pool":                  {`{"operation":"update","agentPoolID":"nope"}`, `agentPoolID: there is no agent pool "nope"`},
		"an image that is none":         {`{"operation":"update","executorContext":{"executorImage":"a b"}}`, "executorContext.executorImage.reference: "},
		"credentials for no image":      {`{"operation":"update","executorContext":{"executorImage":{"credentials":{"username":"u","password":"p"}}}}`, "executorContext.executorImage.reference: is missing"},
		"relative root path":            {`{"operation":"update","executorContext":{"executorRootPath":"home"}}`, "executorContext.executorRootPath: "},
		"a variable that is none":       {`{"operation":"update","operationContext":{"environmentVariables":{"A=B":"x"}}}`, "is not a variable name"},
		"a variable of ours":            {`{"operation":"update","operationContext":{"environmentVariables":{"LONGSHORE_EXECUTOR":"/bin/sh"}}}`, "reserved"},
		"a NUL in a variable":           {`{"operation":"update","operationContext":{"environmentVariables":{"A":"a\u0000b"}}}`, "environmentVariables.A: the value holds a NUL"},
		"a NUL in a command":            {`{"operation":"update","operationContext":{"preRunCommands":["true","a\u0000b"]}}`, "preRunCommands[1]: "},
		"a shell that is none":          {`{"operation":"update","operationContext":{"options":{"shell":"bash -x"}}}`, "options.shell: "},
		"a duration that is none":       {`{"operation":"update","operationContext":{"oidc":{"aws":{"duration":"an hour"}}}}`, "oidc.aws.duration: "},
		"a negative duration":           {`{"operation":"update","operationContext":{"oidc":{"gcp":{"tokenLifetime":"-1h"}}}}`, "oidc.gcp.tokenLifetime: "},
		"10,000 steps":                  {fmt.Sprintf(`{"operation":"update","operationContext":{"preRunCommands":[%s"true"]}}`, strings.Repeat(`"true",`, 9999)), "preRunCommands: 10000 are more"},
		"several mistakes are all told": {`{"operation":"update","sourceContext":{"git":{"repoDir":".."}},"executorContext":{"executorRootPath":"x"}}`, "repoDir: \"..\" leaves the repository, give a path below its root; executorContext.executorRootPath"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			_, err := p.CreateDeployment(t.Context(), p.admin, stack, request(t, c.body), "")
			wantCode(t, err, 400)
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %q, want it to say %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "sesame") {
				t.Errorf("error %q shows a secret", err)
			}
			if _, err := p.Deployments(t.Context(), stack, control.ListQuery{}); err == nil {
				t.Error("the stack is known, so something was done")
			}
		})
	}
}

func TestGoodRequests(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	for name, body := range map[string]string{
		"the CLI's": `{"operation":"update","inheritSettings":true,"executorContext":{"workingDirectory":"","executorImage":"pulumi/pulumi:3"},
			"operationContext":{"preRunCommands":[],"environmentVariables":{"A":{"ciphertext":null,"secret":"x"}},"operation":"","options":null}}`,
		"operation in the old place": `{"operationContext":{"operation":"preview"}}`,
		"a user in the URL":          `{"operation":"update","sourceContext":{"git":{"repoUrl":"ssh://git@git.example/x.git","commit":"abc"}}}`,
		"the short form of SSH":      `{"operation":"update","sourceContext":{"git":{"repoUrl":"git@git.example:a/b.git","branch":"main","repoDir":"."}}}`,
		"an empty source":            `{"operation":"update","sourceContext":{}}`,
		"the most commands":          fmt.Sprintf(`{"operation":"update","operationContext":{"preRunCommands":[%s"true"]}}`, strings.Repeat(`"true",`, 989)),
	} {
		if _, err := p.CreateDeployment(t.Context(), p.admin, stack, request(t, body), ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	for _, name := range []string{"", ".", "..", "a/b", "a b", "ä", "$x", strings.Repeat("x", 101)} {
		for _, ref := range []control.StackRef{{Organization: org, Project: name, Stack: "prod"}, {Organization: org, Project: "shop", Stack: name}} {
			_, err := p.CreateDeployment(t.Context(), p.admin, ref, request(t, simple), "")
			wantCode(t, err, 400)
		}
	}
	_, err := p.CreateDeployment(t.Context(), p.admin, control.StackRef{Organization: "foreign", Project: "shop", Stack: "prod"}, request(t, simple), "")
	wantCode(t, err, 404)
	p.create(t, control.StackRef{Organization: org, Project: "My.Shop_1-x", Stack: strings.Repeat("x", 100)}, simple)
}

func TestInheritedSettings(t *testing.T) {
	t.Parallel()
	const settings = `{"executorContext":{"executorImage":"img:1"},
		"sourceContext":{"git":{"repoUrl":"https://git.example/x.git","branch":"main","repoDir":"infra"}},
		"operationContext":{"preRunCommands":["a","b"],"environmentVariables":{"A":"1","B":{"ciphertext":"AQ=="}},"options":{"shell":"zsh","skipInstallDependencies":true}}}`
	for name, c := range map[string]struct{ request, want string }{
		"a request that says nothing": {`{}`, settings},
		"a commit drives out the branch": {
			`{"sourceContext":{"git":{"commit":"abc"}}}`,
			strings.Replace(settings, `"branch":"main"`, `"commit":"abc"`, 1),
		},
		"a template drives out git": {
			`{"sourceContext":{"template":{"sourceUrl":"registry://x"}},"executorContext":{},"operationContext":{}}`,
			strings.Replace(settings, `{"git":{"repoUrl":"https://git.example/x.git","branch":"main","repoDir":"infra"}}`, `{"template":{"sourceUrl":"registry://x"}}`, 1),
		},
		"lists and secrets are replaced, objects merged": {
			`{"operationContext":{"preRunCommands":["c"],"environmentVariables":{"B":{"secret":"x"},"C":"3"},"options":{"shell":"sh"}}}`,
			`{"executorContext":{"executorImage":"img:1"},
			"sourceContext":{"git":{"repoUrl":"https://git.example/x.git","branch":"main","repoDir":"infra"}},
			"operationContext":{"preRunCommands":["c"],"environmentVariables":{"A":"1","B":{"secret":"x"},"C":"3"},"options":{"shell":"sh","skipInstallDependencies":true}}}`,
		},
		"an image in another form replaces": {
			`{"executorContext":{"executorImage":{"reference":"img:2"}}}`,
			strings.Replace(settings, `"img:1"`, `{"reference":"img:2"}`, 1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := try(control.MergeSettings([]byte(settings), []byte(c.request)))(t)
			if canonical(t, got) != canonical(t, []byte(c.want)) {
				t.Errorf("merged = %s\nwant     %s", got, c.want)
			}
		})
	}

	p := newPlane(t)
	must(t, p.db.Update(t.Context(), func(tx control.Tx) error {
		_, err := tx.SaveSettings(stack, []byte(`{"sourceContext":{"git":{"repoUrl":"https://git.example/x.git","branch":"main"}},"operationContext":{"environmentVariables":{"A":"1"}}}`))
		return err
	}))
	for body, want := range map[string]string{
		`{"operation":"update","sourceContext":{"git":{"commit":"abc"}}}`:              "A=1",
		`{"operation":"update","inheritSettings":false}`:                               "",
		`{"operation":"update","operationContext":{"environmentVariables":{"A":"2"}}}`: "A=2",
	} {
		id := p.create(t, stack, body)
		got := ""
		for _, v := range try(p.Deployment(t.Context(), stack, id))(t).Configuration.EnvironmentVariables {
			got += v.Name + "=" + v.Value
		}
		if got != want {
			t.Errorf("%s: environment = %q, want %q", body, got, want)
		}
	}
}

func canonical(t testing.TB, text []byte) string {
	t.Helper()
	var v any
	must(t, json.Unmarshal(text, &v))
	return string(try(json.Marshal(v))(t))
}
