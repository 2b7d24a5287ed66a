package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// operation is one run of the stand-in's "up", as it recorded it itself.
type operation struct {
	who        string
	agent      string    // its name
	begin, end time.Time // no end: it was killed
	exit       int
	lines      int64
	signals    map[string]int
}

func (o *operation) ended() bool { return !o.end.IsZero() }

// recorder takes the records of stand-ins, each of which has a connection of
// its own: a process id says little where each container counts them anew.
type recorder struct {
	listener net.Listener
	file     *os.File // gets every line, for whoever looks at a run afterwards
	running  sync.WaitGroup

	mu         sync.Mutex
	operations []*operation
	errs       []error
	open       map[net.Conn]bool
}

func newRecorder(ctx context.Context, path string) (*recorder, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r := &recorder{listener: listener, file: file, open: map[net.Conn]bool{}}
	r.running.Go(r.accept)
	return r, nil
}

// address is what the stand-in wants to know.
func (r *recorder) address() string { return "tcp://" + r.listener.Addr().String() }

func (r *recorder) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return // it is closed
		}
		r.mu.Lock()
		r.open[conn] = true
		r.mu.Unlock()
		r.running.Go(func() {
			err := r.take(conn)
			conn.Close()
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.open, conn)
			r.errs = append(r.errs, err)
		})
	}
}

// take follows one stand-in until it ends or is killed.
func (r *recorder) take(conn io.Reader) error {
	var o *operation
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var e struct {
			Event  string
			Time   time.Time
			Argv   []string
			Env    map[string]string
			Signal string
			Exit   int
			Lines  int64
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("record of the stand-in: %w: %q", err, lines.Text())
		}
		r.mu.Lock()
		_, err := fmt.Fprintln(r.file, lines.Text())
		switch {
		case e.Event == "start" && slices.Contains(e.Argv, "up"):
			o = &operation{who: e.Env["WHO"], agent: e.Env[agentVariable], begin: e.Time, signals: map[string]int{}}
			r.operations = append(r.operations, o)
		case o == nil:
		case e.Event == "signal":
			o.signals[e.Signal]++
		case e.Event == "end":
			o.end, o.exit, o.lines = e.Time, e.Exit, e.Lines
		}
		r.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil // a broken connection is the end of a stand-in
}

// all returns what has been recorded. Call it when nothing runs any more.
func (r *recorder) all() ([]*operation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.operations), errors.Join(r.errs...)
}

func (r *recorder) close() error {
	err := r.listener.Close()
	r.mu.Lock()
	for conn := range r.open {
		conn.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
	return errors.Join(err, r.file.Close())
}

// most returns how many operations of one agent ran at the same time at most.
// Those that were killed are left out: nobody knows when.
func most(all []*operation, agent string) int {
	type turn struct {
		at   time.Time
		more int
	}
	var turns []turn
	for _, o := range all {
		if o.ended() && o.agent == agent {
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
