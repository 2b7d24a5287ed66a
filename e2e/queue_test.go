package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/internal/api"
)

// TestFiftyDeploymentsRunExactlyOnce: ten stacks, four agents, and every job
// writes down when it began and ended. The record, not the service, is the
// witness.
func TestFiftyDeploymentsRunExactlyOnce(t *testing.T) {
	t.Parallel()
	const deployments, stacks, agents = 50, 10, 4
	s := newSite(t)
	on := processTarget()
	for range agents {
		s.agent(on, "--concurrency", "3")
	}
	record := filepath.Join(t.TempDir(), "record")
	ctx := bounded(t)
	type made struct {
		stack restclient.Stack
		id    string
	}
	var all []made
	for i := range deployments {
		stack := restclient.Stack(fmt.Sprintf("default/app/stack-%d", i%stacks))
		created, err := s.Create(ctx, stack, request(t, on, func(r object) {
			variables(r)["WHO"] = fmt.Sprintf("%s#%d", stack, i)
			operation(r)["preRunCommands"] = []string{
				program + ` && echo "begin $WHO" >> ` + record + ` && sleep 0.05`,
				`echo "end $WHO" >> ` + record,
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, made{stack, created.ID})
	}
	var wait sync.WaitGroup
	for _, m := range all {
		wait.Go(func() {
			d, err := s.WaitEnd(ctx, m.stack, m.id)
			if err != nil || d.Status != api.StatusSucceeded {
				t.Errorf("deployment %s of %s = %s, %v\n%s", m.id, m.stack, d.Status, err, s.log(m.stack, m.id))
			}
		})
	}
	wait.Wait()
	b, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	count, running, order := map[string]int{}, map[string]string{}, map[string]int{}
	for line := range strings.Lines(string(b)) {
		verb, who, _ := strings.Cut(strings.TrimSpace(line), " ")
		stack, number, _ := strings.Cut(who, "#")
		count[verb+" "+who]++
		switch verb {
		case "begin":
			if other := running[stack]; other != "" {
				t.Errorf("%s began while %s ran", who, other)
			}
			running[stack] = who
			var n int
			fmt.Sscan(number, &n)
			if n < order[stack] {
				t.Errorf("%s began after a later one of its stack", who)
			}
			order[stack] = n
		case "end":
			running[stack] = ""
		}
	}
	if len(count) != 2*deployments {
		t.Errorf("the record has %d different lines, want %d", len(count), 2*deployments)
	}
	for line, n := range count {
		if n != 1 {
			t.Errorf("%q stands %d times in the record, want once", line, n)
		}
	}
}
