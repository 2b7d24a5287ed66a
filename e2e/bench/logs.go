package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

const lineBytes = 100

// logThroughput is B3: one job that prints as fast as it can.
func logThroughput(ctx context.Context, b *bench, out io.Writer) (err error) {
	if b.image == "" {
		return fmt.Errorf("needs a Docker engine")
	}
	s, err := b.site(ctx, "b3", "docker")
	if err != nil {
		return err
	}
	defer func() { err = s.close(err) }()
	lines := int64(b.samples(1<<30, 32<<20) / lineBytes)
	var ours, floor series
	var peak int64
	for i := range b.samples(5, 1) {
		f, err := s.floorLogs(ctx, lines, filepath.Join(b.dir, "floor.log"))
		if err != nil {
			return err
		}
		o, rss, err := s.printLines(ctx, lines, i == 0)
		if err != nil {
			return err
		}
		floor, ours, peak = append(floor, f), append(ours, o), max(peak, rss)
	}
	bytes := float64(lines*lineBytes) / 1e6
	speed := func(d time.Duration) float64 { return bytes / d.Seconds() }
	ratio := float64(floor.p50()) / float64(ours.p50())
	fmt.Fprintf(out, "%d lines of %d bytes. Floor: `docker run` of the same program with `docker logs -f > file`. Ours: from the claim to the end of the deployment,\n"+
		"with everything stored; 50 secrets are looked for in the stream. The first run's log was read back and its sha256 compared.\n\n", lines, lineBytes)
	fmt.Fprintf(out, "| | samples | p50 | p95 | MB/s at p50 |\n|---|---|---|---|---|\n")
	fmt.Fprintf(out, "| floor | %d | %.1f s | %.1f s | %.0f |\n", len(floor), floor.p50().Seconds(), floor.p95().Seconds(), speed(floor.p50()))
	fmt.Fprintf(out, "| ours | %d | %.1f s | %.1f s | %.0f |\n", len(ours), ours.p50().Seconds(), ours.p95().Seconds(), speed(ours.p50()))
	fmt.Fprintf(out, "\n- %.2f x the floor's speed (target 0.8 x): %s\n- executor's peak resident memory %.1f MiB (target 64 MiB): %s\n- every line stored once and in order: met (the run fails otherwise)\n",
		ratio, verdict(ratio >= 0.8), float64(peak)/(1<<20), verdict(peak < 64<<20))
	return nil
}

func printing(lines int64) map[string]any {
	variables := map[string]any{
		"PULUMI_STANDIN_LINES":      strconv.FormatInt(lines, 10),
		"PULUMI_STANDIN_LINE_BYTES": strconv.Itoa(lineBytes),
	}
	for i := range 50 {
		variables[fmt.Sprintf("SECRET_%d", i)] = map[string]string{"secret": fmt.Sprintf("secret-number-%d-of-the-benchmark", i)}
	}
	return variables
}

func (s *site) printLines(ctx context.Context, lines int64, verify bool) (took time.Duration, peak int64, err error) {
	created, err := s.Create(ctx, stack, s.noop(printing(lines)))
	if err != nil {
		return 0, 0, err
	}
	watch, stop := context.WithCancel(ctx)
	peaks := make(chan int64, 1)
	go func() { peaks <- watchExecutor(watch) }()
	d, err := s.WaitEnd(ctx, stack, created.ID)
	stop()
	peak = <-peaks
	if err != nil {
		return 0, peak, err
	}
	if d.Status != api.StatusSucceeded {
		return 0, peak, fmt.Errorf("deployment %s: %s", d.ID, d.Status)
	}
	last := len(d.Jobs[0].Steps) - 1
	step := d.Jobs[0].Steps[last]
	took = step.LastUpdated.Sub(*step.Started)
	if verify {
		if err := s.verify(ctx, d.ID, last, lines); err != nil {
			return took, peak, err
		}
	}
	return took, peak, s.settle(ctx, d.ID)
}

// verify reads the whole log of a step back and compares it with what was printed.
func (s *site) verify(ctx context.Context, id string, step int, lines int64) error {
	want, got := sha256.New(), sha256.New()
	for i := range lines {
		writeLine(want, i)
	}
	var offset, seen int64
	for offset >= 0 {
		page, next, err := s.StepLogs(ctx, stack, id, step, offset, 499)
		if err != nil {
			return err
		}
		for _, l := range page {
			if len(l.Line) == lineBytes && strings.HasSuffix(l.Line, "...\n") && l.Line[0] >= '0' && l.Line[0] <= '9' {
				seen++
				io.WriteString(got, l.Line) //nolint:errcheck // a hash takes everything
			}
		}
		offset = next
	}
	if seen != lines || hex.EncodeToString(want.Sum(nil)) != hex.EncodeToString(got.Sum(nil)) {
		return fmt.Errorf("the log differs from what was printed: %d lines stored, %d printed", seen, lines)
	}
	return nil
}

func writeLine(h hash.Hash, i int64) {
	line := strconv.AppendInt(make([]byte, 0, lineBytes), i, 10)
	for len(line) < lineBytes-1 {
		line = append(line, '.')
	}
	h.Write(append(line, '\n'))
}

// floorLogs runs the same program under the engine's own log path.
func (s *site) floorLogs(ctx context.Context, lines int64, file string) (time.Duration, error) {
	begin := time.Now()
	id, err := exec.CommandContext(ctx, "docker", "run", "-d", "--network", "host", "--log-driver", "json-file",
		"-e", "PULUMI_BACKEND_URL=https://api.pulumi.com", "-e", "PULUMI_STANDIN_DURATION=0s",
		"-e", fmt.Sprintf("PULUMI_STANDIN_LINES=%d", lines), "-e", fmt.Sprintf("PULUMI_STANDIN_LINE_BYTES=%d", lineBytes),
		s.image, "sh", "-c", `mkdir /w && cd /w && printf 'name: bench\nruntime: yaml\n' > Pulumi.yaml && pulumi up --yes --skip-preview --non-interactive --stack default/bench/dev`).Output()
	if err != nil {
		return 0, fmt.Errorf("docker run: %w", err)
	}
	container := strings.TrimSpace(string(id))
	defer func() {
		_ = exec.CommandContext(context.WithoutCancel(ctx), "docker", "rm", "-f", container).Run()
	}()
	out, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	logs := exec.CommandContext(ctx, "docker", "logs", "-f", container)
	logs.Stdout, logs.Stderr = out, out
	if err := logs.Run(); err != nil {
		return 0, fmt.Errorf("docker logs: %w", err)
	}
	took := time.Since(begin)
	info, err := out.Stat()
	if err == nil && info.Size() < lines*lineBytes {
		err = fmt.Errorf("the floor printed %d bytes, want at least %d", info.Size(), lines*lineBytes)
	}
	return took, err
}

// watchExecutor returns the peak resident memory of the executors that it saw.
func watchExecutor(ctx context.Context) (peak int64) {
	for ctx.Err() == nil {
		entries, _ := os.ReadDir("/proc")
		for _, entry := range entries {
			pid, err := strconv.Atoi(entry.Name())
			if err != nil {
				continue
			}
			line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
			if err != nil || !strings.Contains(string(line), "longshore-executor\x00run\x00") {
				continue
			}
			if rss, err := statusField(pid, "VmHWM:"); err == nil {
				peak = max(peak, rss)
			}
		}
		pause(ctx, 200*time.Millisecond)
	}
	return peak
}

// logVisibility is B4: how old a line is when the API shows it.
func logVisibility(ctx context.Context, b *bench, out io.Writer) (err error) {
	s, err := b.site(ctx, "b4", "process")
	if err != nil {
		return err
	}
	defer func() { err = s.close(err) }()
	fmt.Fprintf(out, "A reader asks for the next page every 10 ms. Each line holds the time it was printed at. There is no floor but the clock: the targets are\nabsolute, p50 300 ms and p95 600 ms.\n\n| lines a second | lines | p50 | p95 | |\n|---|---|---|---|---|\n")
	for _, rate := range []int{1, 100, 10_000} {
		ages, err := s.ages(ctx, rate, b.samples(20, 4))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "| %d | %d | %s | %s | %s |\n", rate, len(ages), ms(ages.p50()), ms(ages.p95()),
			verdict(ages.p50() <= 300*time.Millisecond && ages.p95() <= 600*time.Millisecond))
	}
	return nil
}

func (s *site) ages(ctx context.Context, rate, seconds int) (series, error) {
	created, err := s.Create(ctx, stack, s.noop(map[string]any{
		"PULUMI_STANDIN_LINES": strconv.Itoa(rate * seconds), "PULUMI_STANDIN_RATE": strconv.Itoa(rate),
	}))
	if err != nil {
		return nil, err
	}
	var ages series
	token := ""
	for {
		lines, next, err := s.Logs(ctx, stack, created.ID, token)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		for _, l := range lines {
			if rest, ok := strings.CutPrefix(l.Line, "at "); ok {
				text, _, _ := strings.Cut(rest, " ")
				if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
					ages = append(ages, now.Sub(at))
				}
			}
		}
		if next == "" {
			break
		}
		if next == token {
			pause(ctx, 10*time.Millisecond)
		}
		token = next
	}
	if len(ages) < rate*seconds {
		return nil, fmt.Errorf("read %d lines of %d", len(ages), rate*seconds)
	}
	return ages, s.settle(ctx, created.ID)
}
