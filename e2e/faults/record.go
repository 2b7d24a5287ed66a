package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// operation is one run of the stand-in's "up", as it recorded it itself.
type operation struct {
	who        string
	dir        string
	begin, end time.Time // no end: it was killed
	exit       int
	lines      int64
	signals    map[string]int
}

func (o *operation) ended() bool { return !o.end.IsZero() }

// operations reads a record of the stand-in.
func operations(path string) (all []*operation, err error) {
	content, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now := map[int]*operation{} // by process id, which are used again
	for line := range bytes.Lines(content) {
		var e struct {
			Event  string
			Time   time.Time
			Pid    int
			Argv   []string
			Env    map[string]string
			Dir    string
			Signal string
			Exit   int
			Lines  int64
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("record of the stand-in: %w: %q", err, line)
		}
		o := now[e.Pid]
		switch {
		case e.Event == "start" && slices.Contains(e.Argv, "up"):
			o = &operation{who: e.Env["WHO"], dir: e.Dir, begin: e.Time, signals: map[string]int{}}
			now[e.Pid] = o
			all = append(all, o)
		case e.Event == "start":
			delete(now, e.Pid)
		case o == nil:
		case e.Event == "signal":
			o.signals[e.Signal]++
		case e.Event == "end":
			o.end, o.exit, o.lines = e.Time, e.Exit, e.Lines
			delete(now, e.Pid)
		}
	}
	return all, nil
}

// agentOf is the name of the agent below whose directory an operation ran.
func agentOf(root, dir string) string {
	rest, _ := strings.CutPrefix(dir, root+"/")
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// most returns how many operations of one agent ran at the same time at most.
// Those that were killed are left out: nobody knows when.
func most(all []*operation, root, agent string) int {
	type turn struct {
		at   time.Time
		more int
	}
	var turns []turn
	for _, o := range all {
		if o.ended() && agentOf(root, o.dir) == agent {
			turns = append(turns, turn{o.begin, 1}, turn{o.end, -1})
		}
	}
	slices.SortFunc(turns, func(a, b turn) int { return a.at.Compare(b.at) })
	now, highest := 0, 0
	for _, turn := range turns {
		now += turn.more
		highest = max(highest, now)
	}
	return highest
}
