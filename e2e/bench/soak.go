package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/internal/api"
)

// soak lets one server and one agent work for half an hour, and compares what
// they hold at the end with what they held once they were warm.
func soak(ctx context.Context, b *bench, out io.Writer) (err error) {
	s, err := b.site(ctx, "soak", "process", "--concurrency", "2")
	if err != nil {
		return err
	}
	defer func() { err = s.close(err) }()
	minutes := b.samples(30, 3)
	warm, window := max(minutes/6, 1), max(minutes/6, 1)
	var server, agent []usage
	deployments := 0
	for minute := range minutes {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); deployments++ {
			if err := s.soakOnce(ctx, restclient.Stack(fmt.Sprintf("default/soak/stack-%d", deployments%4))); err != nil {
				return err
			}
			pause(ctx, 200*time.Millisecond)
		}
		su, err := held(ctx, s.Pid(), s.URL+"/metrics")
		if err != nil {
			return err
		}
		au, err := held(ctx, s.agent.Pid(), "http://"+s.agent.Address+"/metrics")
		if err != nil {
			return err
		}
		if minute >= warm {
			server, agent = append(server, su), append(agent, au)
		}
	}
	fmt.Fprintf(out, "%d deployments on the process target in %d minutes. Medians of what was held in the first %d minutes after %d of warming up, and in the last %d.\n\n"+
		"| program | resident | goroutines | open files | growth of resident | |\n|---|---|---|---|---|---|\n", deployments, minutes, window, warm, window)
	for _, p := range []struct {
		name string
		held []usage
	}{{"server", server}, {"agent", agent}} {
		first, last := median(p.held[:min(window, len(p.held))]), median(p.held[max(0, len(p.held)-window):])
		growth := float64(last.resident)/float64(first.resident) - 1
		fmt.Fprintf(out, "| %s | %.1f to %.1f MiB | %d to %d | %d to %d | %+.1f%% (target 5%%) | %s |\n", p.name,
			float64(first.resident)/(1<<20), float64(last.resident)/(1<<20), first.goroutines, last.goroutines, first.files, last.files,
			100*growth, verdict(growth < 0.05))
	}
	return nil
}

func (s *site) soakOnce(ctx context.Context, on restclient.Stack) error {
	created, err := s.Create(ctx, on, s.noop(map[string]any{"PULUMI_STANDIN_LINES": "200"}))
	if err != nil {
		return err
	}
	d, err := s.WaitEnd(ctx, on, created.ID)
	if err == nil && d.Status != api.StatusSucceeded {
		err = fmt.Errorf("deployment %s: %s", d.ID, d.Status)
	}
	return err
}

// usage is what a process holds.
type usage struct{ resident, goroutines, files int64 }

func held(ctx context.Context, pid int, metrics string) (u usage, err error) {
	if u.resident, err = statusField(pid, "VmRSS:"); err != nil {
		return u, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, metrics, nil)
	if err != nil {
		return u, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return u, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "go_goroutines":
			u.goroutines, _ = strconv.ParseInt(value, 10, 64)
		case "process_open_fds":
			u.files, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	return u, nil
}

func median(all []usage) usage {
	pick := func(of func(usage) int64) int64 {
		var s series
		for _, u := range all {
			s = append(s, time.Duration(of(u)))
		}
		return int64(s.p50())
	}
	return usage{
		pick(func(u usage) int64 { return u.resident }),
		pick(func(u usage) int64 { return u.goroutines }),
		pick(func(u usage) int64 { return u.files }),
	}
}
