// Command reliability runs a long torture of package faults and writes what it
// came to, with the machine, the date and the seed: it is what "make faults"
// calls. It talks to loopback alone and ends every process that it started. It
// fails when an invariant is broken, and then keeps everything there is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/longshore-run/longshore/e2e/faults"
	"github.com/longshore-run/longshore/e2e/faults/proxy"
	"github.com/longshore-run/longshore/e2e/rig"
)

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("reliability", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "`directory` of the built programs")
	out := flags.String("out", "docs/reliability.md", "`file` to write; - for the terminal only")
	o := faults.Options{Network: faults.Rough(), Log: os.Stderr}
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().Unix()), "`number` that makes the same choices again; default: another one every time")
	flags.IntVar(&o.Deployments, "deployments", 1000, "`number` of deployments on the process target; 0 for none")
	contained := flags.Int("contained", 300, "`number` of deployments on the docker target; 0 for none")
	flags.IntVar(&o.Stacks, "stacks", 40, "`number` of stacks they are spread over")
	flags.IntVar(&o.Agents, "agents", 4, "`number` of agents")
	flags.IntVar(&o.Concurrency, "concurrency", 2, "`number` of deployments that one agent runs at a time")
	flags.DurationVar(&o.FaultEvery, "every", 2*time.Second, "`time` between two kills, more or less")
	flags.Float64Var(&o.Cancel, "cancel", 0.05, "`chance` of a deployment to be cancelled")
	flags.Float64Var(&o.Long, "long", 0.04, "`chance` of a deployment to take long")
	flags.DurationVar(&o.LongFor, "long-for", 35*time.Second, "`time` that a long one takes at least; heartbeats come every 30s")
	agents := flags.Int("kill-agents", 4, "`weight` of agents among the victims")
	servers := flags.Int("kill-server", 3, "`weight` of the server among the victims")
	executors := flags.Int("kill-executors", 2, "`weight` of executors among the victims")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	o.Kill = map[faults.Victim]int{faults.Agent: *agents, faults.Server: *servers, faults.Executor: *executors}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var runs []faults.Options
	for _, r := range []struct {
		deployments int
		docker      bool
	}{{o.Deployments, false}, {*contained, true}} {
		if r.deployments > 0 {
			o.Deployments, o.Docker = r.deployments, r.docker
			runs = append(runs, o)
		}
	}
	if err := all(ctx, runs, *bin, *out); err != nil {
		fmt.Fprintln(os.Stderr, "reliability:", err)
		return 1
	}
	return 0
}

// all makes the runs one after the other and writes the page when every one of
// them could be made, whatever it found.
func all(ctx context.Context, runs []faults.Options, bin, out string) error {
	var page strings.Builder
	fmt.Fprintf(&page, "%s_%s_\n", preamble, rig.Machine(ctx))
	var broken []error
	for _, o := range runs {
		report, err := torture(ctx, o, bin)
		if report == nil {
			return err
		}
		write(&page, report)
		broken = append(broken, err)
	}
	fmt.Print(page.String())
	if out != "-" {
		broken = append(broken, os.WriteFile(out, []byte(page.String()), 0o644))
	}
	return errors.Join(broken...)
}

// torture makes one run. A report that comes with an error says what is broken.
func torture(ctx context.Context, o faults.Options, bin string) (report *faults.Report, err error) {
	if o.Dir, err = os.MkdirTemp("", "longshore-torture-"); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(o.Dir)
			return
		}
		err = fmt.Errorf("%w\neverything it kept is in %s; -seed %d makes the same choices again", err, o.Dir, o.Seed)
	}()
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	o.Programs = rig.In(bin)
	o.Programs.Standin = filepath.Join(o.Dir, "standin", "pulumi")
	if err := rig.BuildStandin(ctx, o.Programs.Standin); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "reliability: %d deployments on the %s target, seed %d, in %s\n", o.Deployments, place(o), o.Seed, o.Dir)
	report, err = faults.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	return report, report.Err()
}

func place(o faults.Options) string {
	if o.Docker {
		return "docker"
	}
	return "process"
}

const preamble = `# Reliability

Made by ` + "`make faults`" + `: the built programs under a load of deployments, while a seeded schedule kills
agents, the server and executors with SIGKILL, and a proxy between all of them and the server does what bad networks do. Then the
server's database and API, the machine and the record of the stand-in for the Pulumi CLI are searched for what must not be there.
One broken invariant fails the run. ` + "`go run ./e2e/reliability -seed N`" + ` makes the same choices again; what is alive to be killed at
that moment depends on the machine.

`

func write(page io.Writer, r *faults.Report) {
	o := r.Options
	fmt.Fprintf(page, "\n## On the %s target\n\n", place(o))
	fmt.Fprintf(page, "Seed %d: %d deployments over %d stacks and %d agents with %d slots each, in %s; a kill every %s on average; %.0f %% of the deployments cancelled at some moment; %.0f %% take %s to %s, the others some seconds.\n\n",
		o.Seed, o.Deployments, o.Stacks, o.Agents, o.Concurrency, r.Took.Round(time.Second), o.FaultEvery, 100*o.Cancel, 100*o.Long, o.LongFor, 2*o.LongFor)

	fmt.Fprint(page, "| | promise | looked at | broken |\n|---|---|---|---|\n")
	for _, i := range r.Invariants {
		fmt.Fprintf(page, "| %s | %s | %d %s | %d |\n", i.Name, i.Says, i.Checked, i.Unit, len(i.Broken))
	}
	fmt.Fprint(page, "\n| killed | times |\n|---|---|\n")
	for _, victim := range []faults.Victim{faults.Agent, faults.Server, faults.Executor} {
		fmt.Fprintf(page, "| %s | %d |\n", victim, r.Kills[victim])
	}
	fmt.Fprint(page, "\n| deployments ended | |\n|---|---|\n")
	for _, how := range slices.Sorted(maps.Keys(r.Ends)) {
		fmt.Fprintf(page, "| %s | %d |\n", how, r.Ends[how])
	}
	fmt.Fprint(page, "\nA lost answer to the creation of a deployment makes the load create it again, so there may be a few more than were asked for.\n")
	network(page, r.Network)
}

// network is a table of what the proxy did, a row for each kind of fault.
func network(page io.Writer, counts map[proxy.Class]map[proxy.Kind]int) {
	kinds := map[proxy.Kind]bool{}
	for _, of := range counts {
		for kind := range of {
			kinds[kind] = true
		}
	}
	classes := proxy.Classes()
	classes = classes[:len(classes)-1] // other calls are left alone
	fmt.Fprint(page, "\n| requests |")
	for _, class := range classes {
		fmt.Fprintf(page, " %s |", class)
	}
	fmt.Fprint(page, "\n|---|"+strings.Repeat("---|", len(classes))+"\n")
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(page, "| %s |", kind)
		for _, class := range classes {
			fmt.Fprintf(page, " %d |", counts[class][kind])
		}
		fmt.Fprintln(page)
	}
}
