package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// recorder appends what happens to a file, one JSON object a line, each in a
// single write, so that several processes may share the file. Instead of a file
// it may be an address, which a process in a container reaches, too.
type recorder struct {
	to    io.Writer
	lines int64 // printed by request
}

type event struct {
	Event  string            `json:"event"`
	Time   string            `json:"time"`
	Pid    int               `json:"pid"`
	Argv   []string          `json:"argv,omitempty"`
	Env    map[string]string `json:"env,omitempty"`
	Dir    string            `json:"dir,omitempty"`
	Signal string            `json:"signal,omitempty"`
	Exit   *int              `json:"exit,omitempty"`
	Lines  int64             `json:"lines,omitempty"`
}

func openRecorder(env func(string) string) *recorder {
	path := env("PULUMI_STANDIN_RECORD")
	if path == "" {
		return &recorder{}
	}
	var to io.Writer
	var err error
	if address, ok := strings.CutPrefix(path, "tcp://"); ok {
		dialer := net.Dialer{Timeout: 10 * time.Second}
		to, err = dialer.DialContext(context.Background(), "tcp", address)
	} else {
		to, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	}
	if err != nil {
		to = os.Stderr
	}
	return &recorder{to: to}
}

func (r *recorder) write(e event) {
	if r.to == nil {
		return
	}
	e.Time, e.Pid = time.Now().UTC().Format(time.RFC3339Nano), os.Getpid()
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	_, _ = r.to.Write(append(line, '\n'))
}

func (r *recorder) start(argv []string, env func(string) string) {
	values := map[string]string{}
	for _, name := range names(env("PULUMI_STANDIN_RECORD_ENV")) {
		values[name] = env(name)
	}
	dir, _ := os.Getwd()
	r.write(event{Event: "start", Argv: argv, Env: values, Dir: dir})
}

func (r *recorder) signal(s os.Signal) { r.write(event{Event: "signal", Signal: s.String()}) }

func (r *recorder) end(code int) { r.write(event{Event: "end", Exit: &code, Lines: r.lines}) }

func names(list string) []string {
	return strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' })
}
