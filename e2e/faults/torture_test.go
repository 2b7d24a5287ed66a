package faults_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/longshore-run/longshore/e2e/faults"
	"github.com/longshore-run/longshore/internal/testkit"
)

// TestEveryPromiseHoldsUnderFaults is a short run of what "make faults" does at
// length. LONGSHORE_SEED repeats another one.
func TestEveryPromiseHoldsUnderFaults(t *testing.T) {
	t.Parallel()
	for _, docker := range []bool{false, true} {
		t.Run(map[bool]string{false: "process", true: "docker"}[docker], func(t *testing.T) {
			t.Parallel()
			if docker {
				testkit.Need(t, "docker")
				testkit.Need(t, "busybox")
			}
			report, err := faults.Run(t.Context(), faults.Options{
				Programs: programs, Dir: kept(t), Seed: number(t, "LONGSHORE_SEED", 1), Docker: docker,
				Deployments: int(number(t, "LONGSHORE_DEPLOYMENTS", 30)), Stacks: 10, Agents: 2, Concurrency: 2,
				FaultEvery: 2 * time.Second,
				Kill:       map[faults.Victim]int{faults.Agent: 3, faults.Server: 2, faults.Executor: 1},
				Network:    faults.Rough(), Cancel: 0.1,
				Log: t.Output(),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d deployments in %s; kills %v; ends %v", report.Options.Deployments, report.Took.Round(time.Second), report.Kills, report.Ends)
			for _, i := range report.Invariants {
				t.Logf("%s %s: %d %s", i.Name, i.Says, i.Checked, i.Unit)
			}
			if err := report.Err(); err != nil {
				t.Error(err)
			}
			// What kills everything before it has begun keeps every promise.
			if ran := report.Ends["succeeded"]; ran < report.Options.Deployments/2 {
				t.Errorf("%d of %d deployments succeeded: the faults left nothing to look at", ran, report.Options.Deployments)
			}
		})
	}
}

// kept is a temporary directory that stays when the test fails.
func kept(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "longshore-torture-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("everything it kept is in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}
