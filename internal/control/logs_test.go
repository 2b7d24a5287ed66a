package control_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// lines returns a batch of n lines from offset on, each saying its number.
func lines(offset, n int) api.LogBatch {
	b := api.LogBatch{Offset: int64(offset)}
	for i := range n {
		b.Lines = append(b.Lines, api.LogLine{Time: time.Unix(100, int64(offset+i)).UTC(), Text: fmt.Sprintf("line %d\n", offset+i)})
	}
	return b
}

// readStep reads the whole log of a step in step mode.
func (p *plane) readStep(t testing.TB, id string, step int) (texts []string, open bool) {
	t.Helper()
	offset := int64(0)
	for {
		out := try(p.StepLogs(t.Context(), stack, id, 0, step, offset, 7))(t)
		for _, l := range out.Lines {
			texts = append(texts, l.Line)
		}
		if out.NextOffset == nil || len(out.Lines) == 0 {
			return texts, out.NextOffset != nil
		}
		offset = *out.NextOffset
	}
}

func TestOffsets(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	id := p.create(t, stack, simple)
	_, job := p.claim(t, pool)
	send := func(b api.LogBatch) error { return p.AppendLog(t.Context(), job, job.JobID, 1, b) }

	must(t, send(lines(0, 5)))
	must(t, send(lines(0, 5)))  // a repeat
	must(t, send(lines(2, 2)))  // part of one
	must(t, send(lines(3, 10))) // the tail is new
	must(t, send(lines(13, 0))) // nothing
	err := send(lines(14, 1))
	wantCode(t, err, 409)
	var e *api.Error
	if !errors.As(err, &e) || e.ExpectedOffset == nil || *e.ExpectedOffset != 13 {
		t.Errorf("error = %#v, want the expected offset 13", e)
	}
	wantCode(t, send(api.LogBatch{Offset: -1}), 400)
	wantCode(t, p.AppendLog(t.Context(), job, job.JobID, 99, lines(0, 1)), 404)
	wantCode(t, send(api.LogBatch{Offset: 13, Lines: []api.LogLine{{Text: strings.Repeat("x", api.MaxLineBytes+1)}}}), 400)

	texts, open := p.readStep(t, id, 1)
	if len(texts) != 13 || !open {
		t.Fatalf("log = %d lines, open %v, want 13 and open", len(texts), open)
	}
	for i, text := range texts {
		if text != fmt.Sprintf("line %d\n", i) {
			t.Errorf("line %d = %q", i, text)
		}
	}
	if n := counterValue(t, p, "longshore_server_log_bytes_total"); n != float64(len(strings.Join(texts, ""))) {
		t.Errorf("bytes counted = %v, want those of 13 lines", n)
	}
	for _, count := range []int{0, 500} {
		_, err := p.StepLogs(t.Context(), stack, id, 0, 1, 0, count)
		wantCode(t, err, 400)
	}
	_, err = p.StepLogs(t.Context(), stack, id, 0, 1, -1, 10)
	wantCode(t, err, 400)
	_, err = p.StepLogs(t.Context(), stack, id, 1, 1, 0, 10)
	wantCode(t, err, 404)
	_, err = p.StepLogs(t.Context(), stack, id, 0, 99, 0, 10)
	wantCode(t, err, 404)
}

// stream reads what there is and returns it with the token that asks for more.
func (p *plane) stream(t testing.TB, id, token string) (text, next string) {
	t.Helper()
	var b strings.Builder
	for {
		out := try(p.StreamLogs(t.Context(), stack, id, token))(t)
		if len(out.Lines) > 500 {
			t.Errorf("a page has %d rows, want at most 500", len(out.Lines))
		}
		for _, l := range out.Lines {
			if l.Header != "" {
				if !l.Timestamp.IsZero() || l.Line != "" {
					t.Errorf("header row %+v, want no time and no line", l)
				}
				fmt.Fprintf(&b, "[%s]\n", l.Header)
			}
			b.WriteString(l.Line)
		}
		if token != "" && out.NextToken == token && len(out.Lines) > 0 {
			t.Errorf("token %s stayed the same though there were lines", token)
		}
		if out.NextToken == token || out.NextToken == "" {
			return b.String(), out.NextToken
		}
		token = out.NextToken
	}
}

func TestStreaming(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	id := p.create(t, stack, simple)

	text, token := p.stream(t, id, "")
	if text != "" || token == "" {
		t.Errorf("before the claim: %q, token %q, want nothing and a token", text, token)
	}
	if out := try(p.StepLogs(t.Context(), stack, id, 0, 2, 0, 10))(t); out.NextOffset == nil || *out.NextOffset != 0 {
		t.Errorf("step mode before the claim: %+v, want to be asked again", out)
	}
	_, job := p.claim(t, pool)
	report := func(step int, s api.StepStatus) { must(t, p.ReportStep(t.Context(), job, job.JobID, step, s)) }
	appendTo := func(step int, b api.LogBatch) { must(t, p.AppendLog(t.Context(), job, job.JobID, step, b)) }
	more := func(want string) {
		t.Helper()
		if text, token = p.stream(t, id, token); text != want {
			t.Errorf("stream = %q, want %q", text, want)
		}
	}
	more("")
	report(0, api.StepRunning)
	more("[Setup]\n")
	appendTo(0, lines(0, 2))
	more("line 0\nline 1\n")
	report(0, api.StepSucceeded)
	appendTo(0, lines(2, 1)) // a late one, and the next step has not begun
	more("line 2\n")
	report(1, api.StepRunning)
	more("[Download deployment executor]\n")
	report(1, api.StepSucceeded)
	report(2, api.StepRunning)
	appendTo(2, lines(0, 1))
	more("[Get source]\nline 0\n")
	more("")
	report(2, api.StepFailed)
	more("")
	if token != "" {
		t.Errorf("token after the end = %q, want none", token)
	}
	whole, _ := p.stream(t, id, "")
	if want := "[Setup]\nline 0\nline 1\nline 2\n[Download deployment executor]\n[Get source]\nline 0\n"; whole != want {
		t.Errorf("whole log = %q, want %q", whole, want)
	}
	for _, bad := range []string{"x", "1.0.0", "0.0", "0.-1.0", "0.0.-1", "0.99.0"} {
		_, err := p.StreamLogs(t.Context(), stack, id, bad)
		wantCode(t, err, 400)
	}
	skipped := p.create(t, stack, simple)
	must(t, p.CancelDeployment(t.Context(), p.admin, stack, skipped))
	if text, token := p.stream(t, skipped, ""); text != "" || token != "" {
		t.Errorf("log of a skipped deployment = %q, token %q, want nothing", text, token)
	}
}

func TestALongLogComesInPagesAndWhole(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pool := p.pool(t, "one")
	id := p.create(t, stack, simple)
	_, job := p.claim(t, pool)
	var want strings.Builder
	want.WriteString("[Setup]\n")
	for at := 0; at < 3000; at += 321 {
		b := lines(at, 321)
		must(t, p.AppendLog(t.Context(), job, job.JobID, 0, b))
		for _, l := range b.Lines {
			want.WriteString(l.Text)
		}
	}
	got, token := p.stream(t, id, "")
	if got != want.String() || token == "" {
		t.Errorf("stream returned %d bytes, want %d, and a token", len(got), want.Len())
	}
}

func counterValue(t testing.TB, p *plane, name string) float64 {
	t.Helper()
	for _, family := range try(p.reg.Gather())(t) {
		if family.GetName() == name {
			sum := 0.0
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
			return sum
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// BenchmarkAppend appends batches of 256 KiB in lines of 100 bytes to four jobs
// at once, into a real database.
func BenchmarkAppend(b *testing.B) {
	for _, jobs := range []int{1, 4} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) { benchmarkAppend(b, jobs, 2621) })
	}
	b.Run("batch=4MiB", func(b *testing.B) { benchmarkAppend(b, 1, 2621*16) })
}

func benchmarkAppend(b *testing.B, jobs, perBatch int) {
	p := newPlane(b)
	pool := p.pool(b, "one")
	var all []control.Principal
	for i := range jobs {
		p.create(b, control.StackRef{Organization: org, Project: "shop", Stack: fmt.Sprint("s", i)}, simple)
		_, job := p.claim(b, pool)
		all = append(all, job)
	}
	batch, rng := api.LogBatch{}, rand.New(rand.NewPCG(1, 2))
	for i := range perBatch {
		text := fmt.Sprintf("%08d %016x%016x%016x resource ", i, rng.Uint64(), rng.Uint64(), rng.Uint64()) // half of it cannot be compressed
		batch.Lines = append(batch.Lines, api.LogLine{Time: time.Unix(100, int64(i)*1000), Text: text + strings.Repeat("=-", 50)[:99-len(text)] + "\n"})
	}
	b.SetBytes(int64(100 * perBatch))
	b.ResetTimer()
	done := make(chan error, jobs)
	for i, job := range all {
		go func() {
			own := batch
			for range b.N/jobs + min(1, max(0, b.N%jobs-i)) {
				if err := p.AppendLog(b.Context(), job, job.JobID, 0, own); err != nil {
					done <- err
					return
				}
				own.Offset += int64(perBatch)
			}
			done <- nil
		}()
	}
	for range jobs {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDispatch measures the time from the creation of a deployment to the
// answer of a poll that waits for it.
func BenchmarkDispatch(b *testing.B) {
	p := newPlane(b)
	pool := p.pool(b, "one")
	got := make(chan *api.AgentWorkflowDefinition)
	go func() {
		for range b.N {
			work, err := p.Poll(b.Context(), pool, agent, control.MaxWait)
			if err != nil {
				b.Error(err)
			}
			got <- work
		}
	}()
	b.ResetTimer()
	for i := range b.N {
		p.create(b, control.StackRef{Organization: org, Project: "shop", Stack: fmt.Sprint("s", i)}, simple)
		<-got
	}
}
