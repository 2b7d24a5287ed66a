package main

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// doing are the words in which the CLI announces an operation.
var doing = map[string]string{
	"up": "Updating", "update": "Updating", "preview": "Previewing update", "refresh": "Refreshing", "destroy": "Destroying",
}

// resourceTime is how long the resource in hand takes to finish after an
// interrupt.
const resourceTime = 200 * time.Millisecond

func (s *standin) operation(command string) int {
	fields, ok := project()
	if !ok {
		return s.fail(255, "no Pulumi.yaml project file found (searching upwards from the current directory). If you have not created a project yet, use `pulumi new` to do so")
	}
	changes := command != "preview" && !s.has("--preview-only")
	if s.has("--non-interactive") && changes && !s.has("--yes") && !s.has("--skip-preview") {
		return s.fail(255, "--yes or --skip-preview must be passed in to proceed when running in non-interactive mode")
	}
	stack := s.flags["--stack"]
	if stack == "" {
		return s.fail(255, "no stack selected; please use `pulumi stack select` or `pulumi stack init` to choose one")
	}
	if !s.stackExists(stack) {
		return s.fail(255, "no stack named '%s' found", stack)
	}
	short := stack[strings.LastIndexByte(stack, '/')+1:]
	name := fields["name"] + "-" + short
	fmt.Fprintf(s.out, "%s (%s)\n\n", doing[command], stack)
	fmt.Fprintf(s.out, "    pulumi:pulumi:Stack %s running\n", name)
	for _, variable := range names(s.env("PULUMI_STANDIN_PRINT_ENV")) {
		fmt.Fprintf(s.out, "%s=%s\n", variable, s.env(variable))
	}
	s.lines()
	if code := s.work(); code != 0 {
		return code
	}
	return s.summary(command, name, fields)
}

// lines prints as many lines as were asked for.
func (s *standin) lines() {
	n, _ := strconv.ParseInt(s.env("PULUMI_STANDIN_LINES"), 10, 64)
	if n <= 0 {
		return
	}
	size, err := strconv.Atoi(s.env("PULUMI_STANDIN_LINE_BYTES"))
	if err != nil || size < 1 {
		size = 100
	}
	out := bufio.NewWriterSize(s.out, 64<<10)
	defer func() { _ = out.Flush() }()
	pad := bytes.Repeat([]byte("."), size)
	line := make([]byte, 0, size+20)
	rate, _ := strconv.ParseInt(s.env("PULUMI_STANDIN_RATE"), 10, 64)
	begin := time.Now()
	for i := range n {
		line = strconv.AppendInt(line[:0], i, 10)
		if rate > 0 {
			if wait := time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))); wait > 0 {
				_ = out.Flush()
				time.Sleep(wait)
			}
			line = time.Now().AppendFormat(append(line[:0], "at "...), time.RFC3339Nano)
			line = strconv.AppendInt(append(line, " line "...), i, 10)
			line = append(line, ' ')
		}
		if len(s.signals) > 0 {
			return // work takes it
		}
		if len(line) < size-1 {
			line = append(line, pad[:size-1-len(line)]...)
		}
		line = append(line[:min(len(line), size-1)], '\n')
		if _, err := out.Write(line); err != nil {
			return
		}
		s.record.lines++
	}
}

// work takes as long as it was told to, and takes signals as the CLI does.
func (s *standin) work() int {
	duration, _ := time.ParseDuration(s.env("PULUMI_STANDIN_DURATION"))
	end := time.After(duration)
	ignore := s.env("PULUMI_STANDIN_IGNORE_SIGNALS") != ""
	interrupted := false
	fill := s.newFill()
	defer fill.stop()
	for {
		select {
		case <-fill.ticks():
			fill.more()
		case got := <-s.signals:
			s.record.signal(got)
			switch {
			case ignore:
			case interrupted:
				fmt.Fprintln(s.err, "^C received; terminating immediately. This may lead to orphaned resources or inaccurate state.")
				return 255
			default:
				interrupted = true
				fill.stop()
				fmt.Fprintln(s.out, "^C received; cancelling. If you would like to terminate immediately, press ^C again.")
				fmt.Fprintln(s.out, "Cancelling...")
				end = time.After(resourceTime)
			}
		case <-end:
			if len(s.signals) > 0 { // it came first
				end = time.After(0)
				continue
			}
			if interrupted {
				fmt.Fprintln(s.err, "error: update canceled")
				return 255
			}
			return 0
		}
	}
}

func (s *standin) summary(command, name string, fields map[string]string) int {
	if code, err := strconv.Atoi(s.env("PULUMI_STANDIN_EXIT")); err == nil && code != 0 {
		fmt.Fprintf(s.out, "    pulumi:pulumi:Stack %s **failed** 1 error\n", name)
		return s.fail(code, "%s failed", strings.ToLower(doing[command]))
	}
	fmt.Fprintf(s.out, "    pulumi:pulumi:Stack %s\n", name)
	first := true
	for _, key := range []string{"outputs.greeting", "outputs.length"} {
		value, ok := fields[key]
		if !ok || command == "destroy" || command == "refresh" {
			continue
		}
		if first {
			fmt.Fprintln(s.out, "Outputs:")
			first = false
		}
		if ref, isRef := strings.CutPrefix(value, "${"); isRef {
			value = fields["variables."+strings.TrimSuffix(ref, "}")]
		}
		if _, err := strconv.Atoi(value); err != nil {
			value = strconv.Quote(value)
		}
		fmt.Fprintf(s.out, "    %s: %s\n", strings.TrimPrefix(key, "outputs."), value)
	}
	verb := "to create"
	if command != "preview" {
		verb = "unchanged"
	}
	fmt.Fprintf(s.out, "\nResources:\n    1 %s\n\nDuration: 1s\n", verb)
	return 0
}
