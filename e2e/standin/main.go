// Command standin behaves like the Pulumi CLI as far as Longshore can tell: its
// arguments, its output, how it takes signals, its exit codes. Tests use it, and
// so does the demo on a machine without Pulumi; it is never shipped.
//
// It knows version, whoami, login, install, plugin, stack select|init|ls, up,
// preview, refresh and destroy, and reads Pulumi.yaml. Under a file:// backend
// it keeps the list of stacks in the folder of the backend; under a service it
// keeps nothing and every stack is there.
//
// An interrupt makes it finish the resource in hand, say so, and end with 255; a
// second one ends it at once. SIGTERM counts like an interrupt, as it does from
// version 3.136 of the CLI on.
//
// Environment variables direct it:
//
//	PULUMI_STANDIN_RECORD          file to which it appends a JSON line for its start, each signal and its end,
//	                               or tcp://host:port, to which it sends them;
//	                               the end says how many of PULUMI_STANDIN_LINES it printed
//	PULUMI_STANDIN_RECORD_ENV      names of variables, by commas, whose values go into the start line
//	PULUMI_STANDIN_DURATION        how long an operation takes ("5s")
//	PULUMI_STANDIN_IGNORE_SIGNALS  when set, signals are recorded and otherwise ignored
//	PULUMI_STANDIN_EXIT            exit code of an operation
//	PULUMI_STANDIN_LINES           number of lines to print, as fast as they go
//	PULUMI_STANDIN_RATE            lines a second instead, each with its time and its number
//	PULUMI_STANDIN_LINE_BYTES      length of each with its newline; default 100
//	PULUMI_STANDIN_MEMORY          MiB of memory to fill in the course of an operation
//	PULUMI_STANDIN_MEMORY_RATE     MiB a second; without it, all at once
//	PULUMI_STANDIN_PRINT_ENV       names of variables, by commas, to print as name=value
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// standin is one call of the program.
type standin struct {
	args   []string // words that are no flags
	flags  map[string]string
	env    func(string) string
	out    io.Writer
	err    io.Writer
	record *recorder

	signals chan os.Signal // taken from the first instruction on
}

func main() {
	flags, args := parse(os.Args[1:])
	s := &standin{args: args, flags: flags, env: os.Getenv, out: os.Stdout, err: os.Stderr, signals: make(chan os.Signal, 8)}
	signal.Notify(s.signals, os.Interrupt, syscall.SIGTERM)
	s.record = openRecorder(os.Getenv)
	s.record.start(os.Args, os.Getenv)
	code := s.run()
	s.record.end(code)
	os.Exit(code)
}

// withValue are the flags that take a value in the next word.
var withValue = map[string]bool{
	"--stack": true, "-s": true, "--cwd": true, "-C": true, "--message": true, "-m": true,
	"--secrets-provider": true, "--parallel": true, "-p": true, "--color": true, "--exec-kind": true, "--exec-agent": true,
	"--target": true, "--config": true, "-c": true, "--verbose": true, "-v": true,
}

func parse(argv []string) (flags map[string]string, args []string) {
	flags = map[string]string{}
	for i := 0; i < len(argv); i++ {
		word := argv[i]
		if !strings.HasPrefix(word, "-") {
			args = append(args, word)
			continue
		}
		name, value, has := strings.Cut(word, "=")
		if !has && withValue[name] && i+1 < len(argv) {
			i++
			value = argv[i]
		}
		switch name {
		case "-s":
			name = "--stack"
		case "-C":
			name = "--cwd"
		case "-y":
			name = "--yes"
		case "-f":
			name = "--skip-preview"
		}
		flags[name] = value
	}
	return flags, args
}

func (s *standin) has(flag string) bool {
	value, ok := s.flags[flag]
	return ok && value != "false"
}

func (s *standin) arg(i int) string {
	if i < len(s.args) {
		return s.args[i]
	}
	return ""
}

func (s *standin) fail(code int, format string, args ...any) int {
	fmt.Fprintf(s.err, "error: "+format+"\n", args...)
	return code
}

func (s *standin) run() int {
	if dir := s.flags["--cwd"]; dir != "" {
		if err := os.Chdir(dir); err != nil {
			return s.fail(255, "%v", err)
		}
	}
	switch command := s.arg(0); command {
	case "":
		if s.has("--version") {
			fmt.Fprintln(s.out, version)
			return 0
		}
		return s.fail(255, "the stand-in needs a command")
	case "version":
		fmt.Fprintln(s.out, version)
	case "login":
		fmt.Fprintf(s.out, "Logged in to %s as standin\n", s.backend())
	case "logout":
	case "whoami":
		fmt.Fprintln(s.out, "standin")
	case "install", "plugin", "config":
	case "stack":
		return s.stack()
	case "up", "update", "preview", "refresh", "destroy":
		return s.operation(command)
	case "cancel":
		fmt.Fprintf(s.out, "The currently running update for '%s' has been canceled!\n", s.flags["--stack"])
	default:
		return s.fail(255, "unknown command %q for \"pulumi\"", command)
	}
	return 0
}

// version says what it is, in a form that whoever compares versions can read.
const version = "v3.200.0-standin"
