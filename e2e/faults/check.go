package faults

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the server's database is looked at

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/internal/api"
)

// Invariant is one promise and what speaks against it.
type Invariant struct {
	Name    string
	Says    string
	Checked int64  // how much was looked at
	Unit    string // of Checked
	Broken  []string
}

func (i *Invariant) broken(format string, args ...any) {
	i.Broken = append(i.Broken, fmt.Sprintf(format, args...))
}

// row is a deployment as it is in the server's database.
type row struct {
	id, status, who string
	stack           restclient.Stack
	jobs            []string // ids; more than one where a claim was taken back
	log             string   // all of it
	runs            []*operation
}

// check looks at everything once the load has ended, and fills the report.
func (t *torture) check(ctx context.Context, l *load, r *Report) error {
	left, err := t.settle(ctx)
	if err != nil {
		return err
	}
	rows, err := t.database(ctx)
	if err != nil {
		return fmt.Errorf("read the server's database: %w", err)
	}
	runs, err := t.record.all()
	if err != nil {
		return err
	}
	byWho := map[string]*row{}
	for _, row := range rows {
		byWho[row.who] = row
		if !api.Status(row.status).Terminal() {
			continue // its log has no end
		}
		if row.log, err = l.readLog(ctx, row); err != nil {
			return fmt.Errorf("read the log of deployment %s: %w", row.id, err)
		}
	}
	once := Invariant{Name: "I1", Says: "no deployment is run twice", Unit: "operations", Checked: int64(len(runs))}
	for _, run := range runs {
		row := byWho[run.who]
		if row == nil {
			once.broken("an operation ran for %q, which the service does not know", run.who)
			continue
		}
		if row.runs = append(row.runs, run); len(row.runs) == 2 {
			once.broken("deployment %s (%s) was run twice", row.id, row.who)
		}
	}
	r.Invariants = []Invariant{
		once, t.logs(rows), t.ends(rows, l, r), remains(left, rows), t.capacity(runs), t.secrets(rows), signals(runs), t.reasons(rows),
	}
	return nil
}

// settle waits until nothing of any job is left, and returns what is left after
// a while nevertheless.
func (t *torture) settle(ctx context.Context) (left []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		alive, err := t.target.left(context.WithoutCancel(ctx))
		left = append(files(t.Dir, t.Agents), alive...)
		if err != nil || len(left) == 0 || !pause(ctx, 100*time.Millisecond) {
			return left, err
		}
	}
}

// remains takes what settle has found.
func remains(left []string, rows []*row) Invariant {
	i := Invariant{Name: "I4", Says: "no process, container, directory or spool of a job is left behind", Unit: "jobs", Broken: left}
	for _, r := range rows {
		i.Checked += int64(len(r.jobs))
	}
	return i
}

// database reads the deployments as the server keeps them.
func (t *torture) database(ctx context.Context) (rows []*row, err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.Dir, "data", "longshore.db")+"?_pragma=busy_timeout(5000)&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	result, err := db.QueryContext(ctx, `
		SELECT d.id, d.status, d.request, s.organization || '/' || s.project || '/' || s.name, COALESCE(GROUP_CONCAT(j.id, ' '), '')
		FROM deployments d JOIN stacks s ON s.id = d.stack_id LEFT JOIN jobs j ON j.deployment_id = d.id
		GROUP BY d.id ORDER BY d.created, d.id`)
	if err != nil {
		return nil, err
	}
	defer result.Close()
	for result.Next() {
		var (
			one     row
			request []byte
			jobs    string
			form    struct {
				OperationContext struct {
					EnvironmentVariables struct{ WHO string }
				}
			}
		)
		if err := result.Scan(&one.id, &one.status, &request, &one.stack, &jobs); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(request, &form); err != nil {
			return nil, fmt.Errorf("deployment %s: %w", one.id, err)
		}
		one.jobs = strings.Fields(jobs)
		one.who = form.OperationContext.EnvironmentVariables.WHO
		rows = append(rows, &one)
	}
	return rows, result.Err()
}

func (l *load) readLog(ctx context.Context, r *row) (string, error) {
	var text strings.Builder
	err := l.again(ctx, func() error {
		text.Reset()
		return l.user.Follow(ctx, r.stack, r.id, func(line api.DeploymentLogLine) { text.WriteString(line.Line) })
	})
	return text.String(), err
}

var numbered = regexp.MustCompile(`(?m)^at \S+ line (\d+) \.+\n`)

// logs compares each stored log with what the stand-in printed.
func (t *torture) logs(rows []*row) Invariant {
	i := Invariant{Name: "I2", Says: "every log line is stored once and in order, and none is lost of a job whose executor lived", Unit: "lines"}
	for _, r := range rows {
		next := int64(0)
		for _, m := range numbered.FindAllStringSubmatch(r.log, -1) {
			got, _ := strconv.ParseInt(m[1], 10, 64)
			if got != next {
				i.broken("deployment %s (%s): line %d is followed by line %d", r.id, r.who, next-1, got)
				break
			}
			next++
		}
		i.Checked += next
		if len(r.runs) != 1 || t.robbed(r) {
			continue // what was printed and not sent is lost with its executor
		}
		if run := r.runs[0]; !run.ended() {
			i.broken("deployment %s (%s): its operation was killed, and its executor was not", r.id, r.who)
		} else if run.lines != next {
			i.broken("deployment %s (%s, %s): %d lines were printed and %d are stored", r.id, r.who, r.status, run.lines, next)
		}
	}
	return i
}

// ends says whether each deployment ended as what was done to it demands.
func (t *torture) ends(rows []*row, l *load, r *Report) Invariant {
	i := Invariant{Name: "I3", Says: "every accepted deployment has one right and final end", Unit: "deployments", Checked: int64(len(rows))}
	seen := map[string]bool{}
	for _, row := range rows {
		seen[row.id] = true
		d := l.known[row.id]
		if d != nil && string(d.end) != row.status {
			i.broken("deployment %s (%s) was %s and is %s now", row.id, row.who, d.end, row.status)
		}
		why, ok := t.justified(row, d)
		r.Ends[why]++
		if !ok {
			i.broken("deployment %s (%s) is %s; its log ends: %s", row.id, row.who, why, tail(row.log))
		}
	}
	for id, d := range l.known {
		if !seen[id] {
			i.broken("deployment %s (%s) was accepted and is lost", id, d.who)
		}
	}
	return i
}

// robbed reports whether the executor of a deployment was killed.
func (t *torture) robbed(r *row) bool {
	for _, job := range r.jobs {
		if t.killed[job] {
			return true
		}
	}
	return false
}

// justified says how a deployment ended, and whether it should have.
func (t *torture) justified(r *row, d *deployment) (how string, ok bool) {
	cancelled := d != nil && d.cancelled
	ran := len(r.runs) > 0
	switch api.Status(r.status) {
	case api.StatusSucceeded:
		return "succeeded", ran && r.runs[0].ended() && r.runs[0].exit == 0
	case api.StatusSkipped:
		return "skipped, cancelled before it was claimed", cancelled && !ran
	case api.StatusFailed:
		switch {
		case t.robbed(r):
			return "failed, its executor was killed", true
		case cancelled:
			return "failed, cancelled", true
		case !ran && t.kills[Agent] > 0 && strings.Contains(r.log, "Nothing was changed; deploy again"):
			return "failed, its agent was killed before it was started", true
		}
		return "failed without a cause", false
	}
	return "not ended: " + r.status, false
}

func tail(log string) string {
	return strconv.Quote(log[max(0, len(log)-400):])
}

// capacity compares what ran at the same time with what was allowed to.
func (t *torture) capacity(runs []*operation) Invariant {
	i := Invariant{Name: "I6", Says: "no agent runs more at a time than it may", Unit: "agents", Checked: int64(t.Agents)}
	for n := range t.Agents {
		agent := agentName(n)
		if most := most(runs, agent); most > t.Concurrency {
			i.broken("%s ran %d at a time, and may run %d", agent, most, t.Concurrency)
		}
	}
	return i
}

// secrets looks for the secret of all jobs, and for job tokens, wherever
// something is kept.
func (t *torture) secrets(rows []*row) Invariant {
	i := Invariant{Name: "I5", Says: "no secret in a log or a file", Unit: "bytes"}
	needles := []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), "lsj-"}
	hits, looked := search(t.Dir, needles, func(string) bool { return false })
	i.Broken, i.Checked = hits, looked
	for _, r := range rows {
		i.Checked += int64(len(r.log))
		for _, needle := range needles {
			if strings.Contains(r.log, needle) {
				i.broken("the log of deployment %s", r.id)
			}
		}
	}
	return i
}

// signals counts what operations got.
func signals(runs []*operation) Invariant {
	i := Invariant{Name: "I7", Says: "pulumi gets one interrupt at most, and no SIGTERM within its grace", Unit: "operations", Checked: int64(len(runs))}
	for _, run := range runs {
		if run.signals["interrupt"] > 1 || run.signals["terminated"] > 0 {
			i.broken("the operation of %s got %v", run.who, run.signals)
		}
	}
	return i
}

// reasons looks whether a log says what was done.
func (t *torture) reasons(rows []*row) Invariant {
	i := Invariant{Name: "I8", Says: "the log of a deployment that failed says why", Unit: "failures"}
	for _, r := range rows {
		if r.status != string(api.StatusFailed) {
			continue
		}
		i.Checked++
		if want := "executor"; t.robbed(r) && !strings.Contains(r.log, want) || strings.TrimSpace(r.log) == "" {
			i.broken("the log of deployment %s (%s) ends: %s", r.id, r.who, tail(r.log))
		}
	}
	return i
}

var errBroken = errors.New("invariants are broken")

// Err is nil when every invariant held.
func (r *Report) Err() error {
	if broken := r.Broken(); len(broken) > 0 {
		return fmt.Errorf("seed %d: %w:\n%s", r.Options.Seed, errBroken, strings.Join(broken, "\n"))
	}
	return nil
}
