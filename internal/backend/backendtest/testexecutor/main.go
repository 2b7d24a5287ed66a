// Command testexecutor stands in for the executor in the conformance suite of
// the backends. It takes the same command line and job file, and plays the
// script in the second step of the definition, one command a line. What it
// finds out travels back in the message of its report.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 2 && args[0] == "allocate" {
		return allocate(args[1])
	}
	e := &executor{terms: make(chan os.Signal, 16)}
	signal.Notify(e.terms, syscall.SIGTERM)
	if len(args) != 3 || args[0] != "run" || args[1] != "--job-file" {
		fmt.Fprintf(os.Stderr, "testexecutor: arguments %q, want run --job-file FILE\n", args)
		return 99
	}
	if err := e.read(args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "testexecutor: job file: %v\n", err)
		return 98
	}
	if e.job.Directory != "" {
		if err := os.Chdir(e.job.Directory); err != nil {
			fmt.Fprintf(os.Stderr, "testexecutor: %v\n", err)
			return 97
		}
	}
	for line := range strings.Lines(e.job.Definition.Steps[1].Run) {
		command, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		code, done, err := e.do(command, rest)
		if err != nil {
			fmt.Fprintf(os.Stderr, "testexecutor: %s: %v\n", command, err)
			return 97
		}
		if done {
			return code
		}
	}
	return 0
}

type executor struct {
	job     api.JobFile
	jobFile string
	info    os.FileInfo
	terms   chan os.Signal
	counted atomic.Int32
	message []string
}

// read reads the job file; "-" is the standard input. The directory of the
// report is the executor's to make where the backend could not.
func (e *executor) read(path string) error {
	file := os.Stdin
	if path != "-" {
		opened, err := os.Open(path) //nolint:gosec // the backend names it
		if err != nil {
			return err
		}
		defer opened.Close()
		if e.info, err = opened.Stat(); err != nil {
			return err
		}
		file = opened
	}
	e.jobFile = path
	if err := json.NewDecoder(file).Decode(&e.job); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Dir(e.job.ReportPath), 0o700)
}

// do plays one command. done ends the script with code.
func (e *executor) do(command, rest string) (code int, done bool, err error) {
	switch command {
	case "":
	case "report": // report OUTCOME
		return 0, false, e.report(api.Outcome(rest))
	case "raw-report": // raw-report TEXT: something that is no report
		return 0, false, os.WriteFile(e.job.ReportPath, []byte(rest), 0o600)
	case "exit": // exit CODE
		code, err = strconv.Atoi(rest)
		return code, true, err
	case "crash": // a panic, with its dump on standard error
		panic(rest)
	case "print":
		fmt.Fprintln(os.Stderr, rest)
	case "ready": // tells the test, through a file beside the report, how far it is
		return 0, false, os.WriteFile(filepath.Join(filepath.Dir(e.job.ReportPath), "ready"), []byte("ready"), 0o600)
	case "await-term": // goes on after the first SIGTERM
		<-e.terms
		e.counted.Add(1)
	case "count-terms": // count-terms DURATION: further ones
		return 0, false, e.countTerms(rest)
	case "hang": // deaf to everything that can be ignored
		select {}
	case "environ":
		env := os.Environ()
		sort.Strings(env)
		e.say(env...)
	case "args":
		e.say(os.Args...)
	case "job-mode": // mode and owner of the job file, and who we are
		if e.jobFile == "-" {
			e.say("no file")
			break
		}
		stat, _ := e.info.Sys().(*syscall.Stat_t)
		e.say(fmt.Sprintf("%v owner=%t", e.info.Mode(), stat != nil && int(stat.Uid) == os.Getuid()))
	case "first-process":
		e.say(fmt.Sprintf("pid1=%t session=%t", os.Getpid() == 1, sessionLeader()))
	case "job-token":
		e.say(e.job.JobToken)
	case "write": // write PATH: relative to the directory where steps start
		return 0, false, os.WriteFile(rest, []byte("written by "+e.job.JobID), 0o600)
	case "spool", "kept": // spool NAME TEXT: a file of the spool, or of what is left for the agent
		name, text, _ := strings.Cut(rest, " ")
		dir := filepath.Join(filepath.Dir(e.job.ReportPath), command)
		return 0, false, errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	case "exists": // exists PATH
		_, statErr := os.Stat(rest)
		e.say(fmt.Sprintf("exists=%t", statErr == nil))
	case "remove-job-file":
		if e.jobFile == "-" {
			break
		}
		return 0, false, os.Remove(e.jobFile)
	case "allocate": // allocate MIB in this process
		return allocate(rest), true, nil
	case "child-allocate": // allocate MIB in a child process; goes on when it is dead
		_ = exec.CommandContext(context.Background(), "/proc/self/exe", "allocate", rest).Run()
	case "escape": // a child in a session of its own that holds nothing of ours
		return 0, false, e.escape()
	case "start-directory":
		dir, wdErr := os.Getwd()
		e.say(dir)
		return 0, false, wdErr
	default:
		return 0, false, fmt.Errorf("no such command")
	}
	return 0, false, nil
}

func (e *executor) say(lines ...string) { e.message = append(e.message, lines...) }

func (e *executor) report(outcome api.Outcome) error {
	data, err := json.Marshal(api.Report{
		Step: 1, Status: api.StepSucceeded, Delivered: true, Outcome: outcome,
		Message: strings.Join(e.message, "\n"),
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", data)
	return os.WriteFile(e.job.ReportPath, data, 0o600)
}

func (e *executor) countTerms(window string) error {
	d, err := time.ParseDuration(window)
	if err != nil {
		return err
	}
	end := time.After(d)
	for {
		select {
		case <-e.terms:
			e.counted.Add(1)
		case <-end:
			e.say(fmt.Sprintf("terms=%d", e.counted.Load()))
			return nil
		}
	}
}

func (e *executor) escape() error {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", "run", "--job-file", e.jobFile)
	// The child plays the same script from a job file of its own: hang.
	child := e.job
	child.Definition.Steps = []api.Step{{}, {Name: "escaped", Run: "hang"}}
	data, err := json.Marshal(child)
	if err != nil {
		return err
	}
	file := filepath.Join(filepath.Dir(e.job.ReportPath), "escaped.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	cmd.Args[3] = file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	return os.WriteFile(filepath.Join(filepath.Dir(e.job.ReportPath), "escaped.pid"), []byte(pid), 0o600)
}

func sessionLeader() bool {
	sid, _, errno := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	return errno == 0 && int(sid) == os.Getpid()
}

// allocate touches that many MiB and holds them for as long as it may live.
func allocate(mib string) int {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return 96
	}
	var blocks [][]byte
	for range n {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		blocks = append(blocks, block)
	}
	fmt.Fprintf(os.Stderr, "testexecutor: allocated %d MiB and was not killed\n", len(blocks))
	return 95
}
