// Command bench measures Longshore beside the floor that no runner can beat, in
// one run and interleaved, and writes the figures with the machine and the date:
// it is what "make bench" calls. It talks to loopback alone and ends every
// process that it started.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/longshore-run/longshore/e2e/rig"
)

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

// bench is what every benchmark gets.
type bench struct {
	programs rig.Programs
	dir      string // for everything it keeps
	image    string // imported job image, empty without an engine
	quick    bool   // fewer samples, for trying the benchmark itself
}

// samples returns n, or few when the run is only a try.
func (b *bench) samples(n, few int) int {
	if b.quick {
		return few
	}
	return n
}

// section is one benchmark: it writes its part of the page.
type section struct {
	name  string
	title string
	run   func(ctx context.Context, b *bench, out io.Writer) error
	// long sections run only when they are named.
	long bool
}

var sections = []section{
	{"b1", "B1 Dispatch: create to the executor's first instruction", dispatch, false},
	{"b2", "B2 A deployment that does nothing, from create to removed container", overhead, false},
	{"b3", "B3 Log path: 1 GiB in 100-byte lines, 50 secrets to mask", logThroughput, false},
	{"b4", "B4 Log visibility: printed to readable through the API", logVisibility, false},
	{"b6", "B6 Get source: one commit of a large repository", source, false},
	{"b7", "B7 Dependency cache: saving and restoring", cacheSpeed, false},
	{"b7-serve", "B7 Dependency cache: what a server's folder serves, beside nginx", serve, false},
	{"b7-install", "B7 Dependency cache: restore and install of a TypeScript program", install, false},
	{"b8", "B8 Idle cost, size, start", idle, false},
	{"b9", "B9 A thousand agents: claims, latency, the return after an outage", claims, false},
	{"b10", "B10 Recovery: an agent that is killed under a running job", agentRecovery, false},
	{"b10-server", "B10 Recovery: a server that is killed, with 10,000 deployments stored", serverRecovery, false},
	{"soak", "Soak: half an hour of deployments", soak, true},
}

func run(ctx context.Context, args []string) int {
	if len(args) == 3 && args[0] == plainClone {
		if err := clonePlainly(ctx, args[1], args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	}
	if len(args) > 0 && args[0] == cacheRun {
		if err := runCache(ctx, args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "`directory` of the built programs")
	out := flags.String("out", "docs/benchmarks.md", "`file` to write; - for the terminal only")
	only := flags.String("only", "", "comma-separated `list` of benchmarks, such as b1,b3; the others keep what the file says")
	quick := flags.Bool("quick", false, "few samples, to try the benchmark itself; writes no file")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{quick: *quick}
	if err := b.prepare(ctx, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	defer os.RemoveAll(b.dir)
	page := readPage(*out)
	failed := false
	for _, s := range sections {
		if *only == "" && s.long || *only != "" && !slices.Contains(strings.Split(*only, ","), s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.title)
		var text bytes.Buffer
		fmt.Fprintf(&text, "## %s\n\n_%s_\n\n", s.title, rig.Machine(ctx))
		if err := s.run(ctx, b, &text); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", s.name, err)
			failed = true
			continue
		}
		fmt.Println(text.String())
		page[s.name] = text.String()
		if *out != "-" && !*quick {
			if err := writePage(*out, page); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				return 1
			}
		}
	}
	if failed {
		return 1
	}
	return 0
}

func (b *bench) prepare(ctx context.Context, bin string) error {
	dir, err := os.MkdirTemp("", "longshore-bench-")
	if err != nil {
		return err
	}
	b.dir = dir
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	b.programs = rig.In(bin)
	b.programs.Standin = filepath.Join(dir, "standin", "pulumi")
	if err := rig.BuildStandin(ctx, b.programs.Standin); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: no static busybox, so nothing is measured on Docker")
		return nil
	}
	const reference = "longshore-bench-job:latest"
	if err := rig.ImportImage(ctx, reference, busybox, b.programs.Standin); err != nil {
		fmt.Fprintln(os.Stderr, "bench: nothing is measured on Docker:", err)
		return nil //nolint:nilerr // Docker is one of two targets
	}
	b.image = reference
	return nil
}

const preamble = `# Benchmarks

Made by ` + "`make bench`" + `. Every figure stands beside its floor, measured in the same run and interleaved with it, because the
machines that run this are small and shared: read the ratios and differences, not the absolute times. p50 is the median.

`

// readPage splits an earlier page into its sections, so that one can be
// measured again without the others.
func readPage(path string) map[string]string {
	page := map[string]string{}
	content, err := os.ReadFile(path)
	if err != nil {
		return page
	}
	for _, part := range strings.Split("\n"+string(content), "\n## ")[1:] {
		for _, s := range sections {
			if strings.HasPrefix(part, s.title+"\n") {
				page[s.name] = "## " + strings.TrimRight(part, "\n") + "\n"
			}
		}
	}
	return page
}

func writePage(path string, page map[string]string) error {
	var text strings.Builder
	text.WriteString(preamble)
	for _, s := range sections {
		if part, ok := page[s.name]; ok {
			text.WriteString(strings.TrimRight(part, "\n") + "\n\n")
		}
	}
	return os.WriteFile(path, []byte(strings.TrimRight(text.String(), "\n")+"\n"), 0o644) //nolint:gosec // a page of the documentation
}
