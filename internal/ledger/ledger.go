// Package ledger is an agent's memory of the jobs that it has claimed and not
// finished. It outlives the agent's process and its host's power: what is in it
// is on the disk before the next thing happens to the job. The next process of
// the agent reads from it what to take up, to report, or to clean away.
//
// Each job is one file, of mode 0600 because it holds the job's token, in a
// directory of mode 0700. The main type is Ledger.
package ledger

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Entry is what is remembered of one job.
type Entry struct {
	// Work is the claim, less what only the executor needs.
	Work    api.AgentWorkflowDefinition `json:"work"`
	Claimed time.Time                   `json:"claimed"`
	// Started is when the executor was started. While it is zero the job may
	// have been started nevertheless: the backend knows.
	Started time.Time `json:"started,omitzero"`
	// Workload is the backend's name for what runs the job, for messages.
	Workload string `json:"workload,omitempty"`
	// BootID is that of the host when the job was claimed.
	BootID string `json:"bootID,omitempty"`

	// Of the definition: what an agent needs before it can ask for it again.
	Operation api.Operation `json:"operation,omitempty"`
	Timeout   api.Duration  `json:"timeout,omitempty"`

	// End is how the job ended, when that is known and the service does not
	// know it yet.
	End *End `json:"end,omitempty"`
}

// End is what an agent has to say about the end of a job that its executor did
// not say itself.
type End struct {
	Outcome string `json:"outcome"`
	Failed  bool   `json:"failed"`
	Step    int    `json:"step"`
	Line    string `json:"line"`
	Settled bool   `json:"settled,omitempty"`
	Told    bool   `json:"told,omitempty"`
}

const (
	suffix    = ".json"
	damaged   = ".damaged"
	ownerName = "owner"
	// maxEntry bounds what is read; an entry takes a thousandth of it.
	maxEntry = 1 << 20
)

// Ledger is a directory of entries. A nil Ledger remembers nothing. Methods may
// be called concurrently for different jobs. One process at a time may use a
// directory; its caller sees to that.
type Ledger struct {
	dir   string
	owner string
}

// Open returns the ledger in dir, which is made when it is not there.
func Open(dir string) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l := &Ledger{dir: dir}
	if err := l.removeHalf(); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	known, err := os.ReadFile(filepath.Join(dir, ownerName))
	switch {
	case err == nil && len(known) == 2*ownerBytes:
		l.owner = string(known)
		return l, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("ledger: %w", err)
	}
	id := make([]byte, ownerBytes)
	_, _ = rand.Read(id) // never fails
	l.owner = hex.EncodeToString(id)
	if err := l.write(ownerName, []byte(l.owner)); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return l, nil
}

// removeHalf removes what a process was writing when it was killed: there are
// tokens in it.
func (l *Ledger) removeHalf() error {
	half, err := filepath.Glob(filepath.Join(l.dir, halfPattern))
	for _, name := range half {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

const ownerBytes = 8

// Owner returns the id of this directory, made at random when it was new. It is
// the mark by which an agent finds what it started.
func (l *Ledger) Owner() string {
	if l == nil {
		return ""
	}
	return l.owner
}

// Put remembers e in the place of what was remembered of its job. When it
// returns nil, e is on the disk.
func (l *Ledger) Put(e Entry) error {
	if l == nil {
		return nil
	}
	e.Work.OIDCToken = "" // for the executor, which has it
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := l.write(fileName(e.Work.JobID), data); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

// halfPattern is what files are called while they are written.
const halfPattern = ".new-*"

// write replaces a file, so that a reader finds the old one or the new one.
func (l *Ledger) write(name string, data []byte) error {
	f, err := os.CreateTemp(l.dir, halfPattern) // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already, when all went well
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(l.dir, name)); err != nil {
		return err
	}
	return l.sync()
}

// sync puts the names in the directory on the disk.
func (l *Ledger) sync() error {
	dir, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Drop forgets a job.
func (l *Ledger) Drop(jobID string) error {
	if l == nil {
		return nil
	}
	if err := os.Remove(filepath.Join(l.dir, fileName(jobID))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

// All returns what is remembered, the oldest claim first. An entry that cannot
// be read is put aside under another name and is part of the error; those that
// can be read are returned beside it.
func (l *Ledger) All() ([]Entry, error) {
	if l == nil {
		return nil, nil
	}
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	var (
		all  []Entry
		errs []error
	)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), suffix) {
			continue
		}
		e, err := l.read(f.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // dropped meanwhile
		}
		if err != nil {
			path := filepath.Join(l.dir, f.Name())
			errs = append(errs, fmt.Errorf("ledger: %s is put aside as %s%s: %w", path, f.Name(), damaged, err))
			_ = os.Rename(path, path+damaged)
			continue
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return a.Claimed.Compare(b.Claimed) })
	return all, errors.Join(errs...)
}

func (l *Ledger) read(name string) (Entry, error) {
	path := filepath.Join(l.dir, name)
	info, err := os.Lstat(path)
	if err != nil {
		return Entry{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxEntry {
		return Entry{}, errors.New("it is no entry")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, err
	}
	var e Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, errors.New("it is damaged") // what JSON errors quote may be secret
	}
	if e.Work.JobID == "" || e.Work.JobToken == "" || fileName(e.Work.JobID) != name {
		return Entry{}, errors.New("it is of no job")
	}
	return e, nil
}

// fileName is one to one with the job id.
func fileName(jobID string) string { return url.PathEscape(jobID) + suffix }
