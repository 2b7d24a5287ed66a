package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// idle is B8: what an agent costs while there is nothing to do.
func idle(ctx context.Context, b *bench, out io.Writer) error {
	target := "process"
	if b.image != "" {
		target = "docker"
	}
	rss, cpu, span, err := b.idleAgent(ctx, target)
	if err != nil {
		return err
	}
	starts, err := b.startToPoll(ctx)
	if err != nil {
		return err
	}
	agent, err := strippedSize(b.programs.Agent)
	if err != nil {
		return err
	}
	executor, err := strippedSize(b.programs.Executor)
	if err != nil {
		return err
	}
	perHour := cpu.Seconds() * float64(time.Hour) / float64(span)
	const mib = 1 << 20
	fmt.Fprintf(out, "| what | measured | target | |\n|---|---|---|---|\n")
	fmt.Fprintf(out, "| agent resident, idle on a held poll (%s target) | %.1f MiB | 20 MiB | %s |\n", target, float64(rss)/mib, verdict(rss <= 20*mib))
	fmt.Fprintf(out, "| agent CPU, from %s of it | %.2f s an hour | 1 s an hour | %s |\n", span.Round(time.Second), perHour, verdict(perHour < 1))
	fmt.Fprintf(out, "| start to first poll, p50 of %d (p95 %s) | %s | 150 ms | %s |\n", len(starts), ms(starts.p95()), ms(starts.p50()), verdict(starts.p50() <= 150*time.Millisecond))
	fmt.Fprintf(out, "| stripped agent | %.1f MiB | 30 MiB | %s |\n", float64(agent)/mib, verdict(agent <= 30*mib))
	fmt.Fprintf(out, "| stripped executor | %.1f MiB | 16 MiB | %s |\n", float64(executor)/mib, verdict(executor <= 16*mib))
	fmt.Fprint(out, "\nWhat the largest dependencies add to a program, in code and constants that carry their name:\n\n")
	for _, program := range []string{"agent", "executor"} {
		if err := dependencyCost(ctx, out, program); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) idleAgent(ctx context.Context, target string) (rss int64, cpu, span time.Duration, err error) {
	s, err := b.site(ctx, "b8", target)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = s.close(err) }()
	pause(ctx, 5*time.Second) // the first poll is held by now
	before, err := cpuTime(s.agent.Pid())
	if err != nil {
		return 0, 0, 0, err
	}
	begin := time.Now()
	pause(ctx, time.Duration(b.samples(125, 10))*time.Second)
	after, err := cpuTime(s.agent.Pid())
	if err != nil {
		return 0, 0, 0, err
	}
	span = time.Since(begin)
	rss, err = statusField(s.agent.Pid(), "VmRSS:")
	return rss, after - before, span, err
}

// startToPoll times an agent's start to its first poll, which a server of this
// benchmark answers.
func (b *bench) startToPoll(ctx context.Context) (series, error) {
	polled := make(chan time.Time, 16)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/deployments/poll" {
			select {
			case polled <- time.Now():
			default:
			}
		}
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusNoContent)
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	defer func() {
		_ = server.Close()
		<-served
	}()
	var starts series
	for i := range b.samples(20, 5) {
		cmd := exec.CommandContext(ctx, b.programs.Agent, "run", "--service-url", "http://"+listener.Addr().String(),
			"--deploy-target", "process", "--http-server-port", "0", "--working-directory", fmt.Sprintf("%s/start-%d", b.dir, i))
		cmd.Env = append(os.Environ(), "LONGSHORE_AGENT_TOKEN=lsp-benchmark")
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		select {
		case at := <-polled:
			starts = append(starts, at.Sub(begin))
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			return nil, fmt.Errorf("the agent did not poll within 20 s")
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for len(polled) > 0 {
			<-polled
		}
	}
	return starts, nil
}

func strippedSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// dependencyCost builds a program with its symbols and adds their sizes up by
// module.
func dependencyCost(ctx context.Context, out io.Writer, program string) error {
	path := os.TempDir() + "/longshore-bench-symbols-" + program
	defer os.Remove(path)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "./cmd/"+program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s with symbols: %w: %s", program, err, text)
	}
	text, err := exec.CommandContext(ctx, "go", "tool", "nm", "-size", path).Output()
	if err != nil {
		return fmt.Errorf("read the symbols of %s: %w", program, err)
	}
	sizes := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		// Code and constants. What is zero at the start is not in the file, and
		// the tables of the linker belong to nobody.
		if err == nil && strings.ContainsAny(fields[2], "TtRr") {
			sizes[moduleOf(fields[3])] += size
		}
	}
	fmt.Fprintf(out, "- %s: %s\n", program, largest(sizes, 9))
	return nil
}

// cpuTime reads how long the threads of a process have run, in nanoseconds.
func cpuTime(pid int) (time.Duration, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, entry := range entries {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, entry.Name()))
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// statusField reads a size from /proc/PID/status, in bytes.
func statusField(pid int, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
