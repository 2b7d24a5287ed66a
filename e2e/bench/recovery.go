package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// agentRecovery is the agent's part of B10: killed again and again under one
// running job.
func agentRecovery(ctx context.Context, b *bench, out io.Writer) error {
	targets := []string{"process"}
	if b.image != "" {
		targets = append(targets, "docker")
	}
	fmt.Fprint(out, "One job runs and prints ten numbered lines a second. Its agent is killed with SIGKILL and started again, many times; measured is from the\n"+
		"start of the new process to its word that the job is taken over. At the end the job must have succeeded, with every line in its log once.\n\n"+
		"| target | kills | p50 | p95 | lines lost | |\n|---|---|---|---|---|---|\n")
	for _, target := range targets {
		times, lost, err := b.killUnder(ctx, target, b.samples(20, 3))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "| %s | %d | %s | %s | %d | %s |\n", target, len(times), ms(times.p50()), ms(times.p95()), lost,
			verdict(times.p95() <= 2*time.Second && lost == 0))
	}
	fmt.Fprint(out, "\nTarget: taken over within 2 s, nothing lost.\n")
	return nil
}

func (b *bench) killUnder(ctx context.Context, target string, kills int) (times series, lost int, err error) {
	s, err := b.site(ctx, "b10-"+target, target)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = s.close(err) }()
	const rate = 10
	lines := rate * (kills*2 + 5)
	created, err := s.Create(ctx, stack, s.noop(map[string]any{
		"PULUMI_STANDIN_LINES": strconv.Itoa(lines), "PULUMI_STANDIN_RATE": strconv.Itoa(rate),
	}))
	if err != nil {
		return nil, 0, err
	}
	if err := s.printed(ctx, created.ID); err != nil {
		return nil, 0, err
	}
	for range kills {
		s.agent.Kill()
		began := time.Now()
		if err := s.restart(ctx); err != nil {
			return nil, 0, err
		}
		at, err := s.takenOver(ctx, began)
		if err != nil {
			return nil, 0, err
		}
		times = append(times, at.Sub(began))
		pause(ctx, time.Second)
	}
	d, err := s.WaitEnd(ctx, stack, created.ID)
	if err == nil && d.Status != api.StatusSucceeded {
		err = fmt.Errorf("deployment %s: %s", d.ID, d.Status)
	}
	if err != nil {
		return times, 0, err
	}
	seen, err := s.numbered(ctx, created.ID, len(d.Jobs[0].Steps)-1)
	return times, lines - seen, err
}

// printed waits until the operation of a deployment prints.
func (s *site) printed(ctx context.Context, id string) error {
	for ctx.Err() == nil {
		lines, _, err := s.Logs(ctx, stack, id, "")
		if err != nil {
			return err
		}
		for _, l := range lines {
			if strings.HasPrefix(l.Line, "at ") {
				return nil
			}
		}
		pause(ctx, 20*time.Millisecond)
	}
	return context.Cause(ctx)
}

// takenOver returns when an agent that was started later than began said that
// it has taken a job over.
func (s *site) takenOver(ctx context.Context, began time.Time) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		log, err := os.Open(s.agent.Log)
		if err != nil {
			return time.Time{}, err
		}
		for lines := bufio.NewScanner(log); lines.Scan(); {
			var entry struct {
				Time    time.Time `json:"time"`
				Message string    `json:"message"`
			}
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Message == "job taken over" && entry.Time.After(began) {
				log.Close()
				return entry.Time, nil
			}
		}
		log.Close()
		pause(ctx, 10*time.Millisecond)
	}
	return time.Time{}, fmt.Errorf("no job was taken over: %w\n%s", context.Cause(ctx), s.agent.Tail())
}

// numbered counts the lines of a step's log that are there in order, and fails
// when one is there twice.
func (s *site) numbered(ctx context.Context, id string, step int) (int, error) {
	seen, last := 0, -1
	var offset int64
	for offset >= 0 {
		page, next, err := s.StepLogs(ctx, stack, id, step, offset, 499)
		if err != nil {
			return 0, err
		}
		for _, l := range page {
			_, rest, ok := strings.Cut(l.Line, " line ")
			if !ok || !strings.HasPrefix(l.Line, "at ") {
				continue
			}
			text, _, _ := strings.Cut(rest, " ")
			n, err := strconv.Atoi(text)
			if err != nil || n <= last {
				return 0, fmt.Errorf("line %q comes after line %d", l.Line, last)
			}
			seen, last = seen+1, n
		}
		offset = next
	}
	return seen, nil
}
