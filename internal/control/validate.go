package control

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// reservedEnv begins the names of the variables that are Longshore's own.
const reservedEnv = "LONGSHORE_"

var (
	namePattern  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}$`)
	shellPattern = regexp.MustCompile(`^[A-Za-z0-9_./+-]+$`)
)

// problems collects what is wrong with a request, each with the path of its
// field.
type problems []string

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, field+": "+fmt.Sprintf(format, args...))
}

// err returns all of it as one answer, nil when there is nothing.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &api.Error{Code: http.StatusBadRequest, Message: strings.Join(p, "; ")}
}

// badRequest turns errors, joined or not, into a 400.
func badRequest(err error) error {
	return &api.Error{Code: http.StatusBadRequest, Message: strings.ReplaceAll(err.Error(), "\n", "; "), Err: err}
}

// checkName refuses names that could not be part of a path, a file name or a
// stack identity.
func (p *problems) checkName(field, name string) {
	if !namePattern.MatchString(name) || name == "." || name == ".." {
		p.add(field, "%q is no name: use 1 to 100 letters, digits, dots, hyphens and underscores", shorten(name))
	}
}

func shorten(s string) string {
	if len(s) > 120 {
		return s[:120] + "..."
	}
	return s
}

func checkStack(r StackRef) error {
	var p problems
	p.checkName("organization", r.Organization)
	p.checkName("project", r.Project)
	p.checkName("stack", r.Stack)
	return p.err()
}

// operationOf returns what the request asks for. It must be said in one place.
func operationOf(r api.CreateDeploymentRequest) (api.Operation, error) {
	var p problems
	op, field := r.Operation, "operation"
	if c := r.OperationContext; c != nil && c.Operation != "" {
		if op != "" {
			p.add(field, "is given twice: leave out operationContext.operation")
			return "", p.err()
		}
		op, field = c.Operation, "operationContext.operation"
	}
	switch {
	case op == "":
		p.add(field, "is missing, want one of %s", operationList())
	case !op.Valid():
		p.add(field, "%q is unknown, want one of %s", shorten(string(op)), operationList())
	}
	return op, p.err()
}

func operationList() string {
	var names []string
	for _, o := range api.Operations() {
		names = append(names, string(o))
	}
	return strings.Join(names, ", ")
}

// validate reports every mistake of a request in which settings are merged,
// but its operation. Secrets may be sealed or not.
func validate(r api.CreateDeploymentRequest) error {
	var p problems
	if s := r.SourceContext; s != nil {
		p.checkSource(*s)
	}
	if e := r.ExecutorContext; e != nil {
		p.checkExecutor(*e)
	}
	if o := r.OperationContext; o != nil {
		p.checkOperation(*o)
	}
	return p.err()
}

func (p *problems) checkSource(s api.SourceContextRequest) {
	kinds := 0
	for _, given := range []bool{s.Git != nil, s.Hg != nil, s.Template != nil} {
		if given {
			kinds++
		}
	}
	if kinds > 1 {
		p.add("sourceContext", "git, hg and template exclude each other, give one of them")
		return
	}
	if s.Hg != nil {
		p.add("sourceContext.hg", "Mercurial is not supported, use sourceContext.git")
	}
	if g := s.Git; g != nil {
		p.checkGit(*g)
	}
	if t := s.Template; t != nil {
		p.checkTemplate(*t)
	}
}

func (p *problems) checkGit(g api.SourceContextGitRequest) {
	const at = "sourceContext.git"
	p.checkURL(at+".repoUrl", g.RepoURL)
	switch {
	case g.Branch != "" && g.Commit != "":
		p.add(at, "branch and commit exclude each other, give one of them")
	case g.Branch == "" && g.Commit == "":
		p.add(at, "branch or commit is missing")
	}
	p.checkText(at+".branch", g.Branch)
	p.checkText(at+".commit", g.Commit)
	p.checkText(at+".repoDir", g.RepoDir)
	if leaves(g.RepoDir) {
		p.add(at+".repoDir", "%q leaves the repository, give a path below its root", shorten(g.RepoDir))
	}
	if g.GitAuth != nil {
		p.checkAuth(at+".gitAuth", *g.GitAuth)
	}
}

func (p *problems) checkTemplate(t api.SourceContextTemplateRequest) {
	const at = "sourceContext.template"
	p.checkURL(at+".sourceUrl", t.SourceURL)
	if u, err := url.Parse(t.SourceURL); err == nil && slices.Contains(strings.Split(u.Path, "/"), "..") {
		p.add(at+".sourceUrl", "%q leaves the repository, give a path without \"..\"", shorten(t.SourceURL))
	}
	if a := t.GitAuth; a != nil {
		p.checkAuth(at+".gitAuth", *a)
		if a.BasicAuth != nil || a.SSHAuth != nil {
			p.add(at+".gitAuth", "a template takes an accessToken only")
		}
	}
}

// leaves reports whether a path of a repository is absolute or leads out of it.
func leaves(dir string) bool {
	clean := path.Clean(strings.ReplaceAll(dir, `\`, "/"))
	return path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../")
}

func (p *problems) checkURL(field, text string) {
	if strings.TrimSpace(text) == "" {
		p.add(field, "is missing")
		return
	}
	p.checkText(field, text)
	if u, err := url.Parse(text); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			p.add(field, "holds a password, which would show in logs: put it into gitAuth")
		}
	}
}

// checkText refuses what no command line can carry and what would be taken for
// an option.
func (p *problems) checkText(field, text string) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		p.add(field, "holds a control character")
	}
	if strings.HasPrefix(text, "-") {
		p.add(field, "must not begin with a hyphen")
	}
}

func (p *problems) checkAuth(field string, a api.GitAuthConfigRequest) {
	kinds := 0
	for _, given := range []bool{a.AccessToken != nil, a.BasicAuth != nil, a.SSHAuth != nil} {
		if given {
			kinds++
		}
	}
	if kinds > 1 {
		p.add(field, "accessToken, basicAuth and sshAuth exclude each other, give one of them")
		return
	}
	need := func(name string, v *api.SecretValue) {
		if v == nil || v.IsZero() {
			p.add(field+"."+name, "is missing")
		}
	}
	switch {
	case a.AccessToken != nil:
		need("accessToken", a.AccessToken)
	case a.BasicAuth != nil:
		need("basicAuth.userName", a.BasicAuth.UserName)
		need("basicAuth.password", a.BasicAuth.Password)
	case a.SSHAuth != nil:
		need("sshAuth.sshPrivateKey", a.SSHAuth.SSHPrivateKey)
	}
}

func (p *problems) checkExecutor(e api.ExecutorSettingsRequest) {
	const at = "executorContext"
	if i := e.ExecutorImage; i != nil {
		if strings.ContainsFunc(i.Reference, func(r rune) bool { return r <= ' ' || r == 0x7f }) || strings.HasPrefix(i.Reference, "-") {
			p.add(at+".executorImage.reference", "%q is no image, want one such as pulumi/pulumi:latest", shorten(i.Reference))
		}
		if c := i.Credentials; c != nil {
			if i.Reference == "" {
				p.add(at+".executorImage.reference", "is missing, but there are credentials for it")
			}
			if c.Username == "" {
				p.add(at+".executorImage.credentials.username", "is missing")
			}
			if c.Password.IsZero() {
				p.add(at+".executorImage.credentials.password", "is missing")
			}
		}
	}
	if root := e.ExecutorRootPath; root != "" {
		p.checkText(at+".executorRootPath", root)
		if !path.IsAbs(root) || slices.Contains(strings.Split(root, "/"), "..") {
			p.add(at+".executorRootPath", "%q is no absolute path without \"..\"", shorten(root))
		}
	}
}

func (p *problems) checkOperation(o api.OperationContextRequest) {
	const at = "operationContext"
	for name := range o.EnvironmentVariables {
		field := at + ".environmentVariables." + shorten(name)
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00 \t\r\n"):
			p.add(field, "%q is not a variable name", shorten(name))
		case strings.HasPrefix(name, reservedEnv):
			p.add(field, "names that begin with %s are reserved", reservedEnv)
		}
	}
	slices.Sort(*p) // maps have no order, answers should
	for i, c := range o.PreRunCommands {
		if strings.ContainsRune(c, 0) {
			p.add(fmt.Sprintf("%s.preRunCommands[%d]", at, i), "the script holds a NUL byte")
		}
	}
	if n := len(o.PreRunCommands); n > api.MaxSteps-reservedSteps {
		p.add(at+".preRunCommands", "%d are more than the limit of %d", n, api.MaxSteps-reservedSteps)
	}
	if opt := o.Options; opt != nil && opt.Shell != "" && (!shellPattern.MatchString(opt.Shell) || strings.HasPrefix(opt.Shell, "-")) {
		p.add(at+".options.shell", "%q is no shell, want a name or path such as bash", shorten(opt.Shell))
	}
	if c := o.OIDC; c != nil && c.AWS != nil {
		p.checkDuration(at+".oidc.aws.duration", c.AWS.Duration)
	}
	if c := o.OIDC; c != nil && c.GCP != nil {
		p.checkDuration(at+".oidc.gcp.tokenLifetime", c.GCP.TokenLifetime)
	}
}

func (p *problems) checkDuration(field, text string) {
	if text == "" {
		return
	}
	if d, err := time.ParseDuration(text); err != nil || d < 0 {
		p.add(field, "%q is no duration, want one such as 1h30m", shorten(text))
	}
}
