// Package undelivered keeps, on an agent's disk, the logs of jobs that ended
// before the service had taken all of them, and delivers them later. A job's
// token outlives the job for some minutes: until then there is hope.
//
// The main types are Store, a directory of such jobs, and Job, one of them:
//
//	<store>/<job id>/record.json   the Record, of mode 0600
//	<store>/<job id>/spool/        what an executor left (see package logstream)
//	<store>/<job id>/spool-2/ ...  more of it, such as what the agent itself had
//	<store>/<job id>.2/ ...        the same, of a later Put for the same job
//
// Whoever takes a job out of the store, by Push or Remove, holds a lock on its
// record, so that an agent and a person may both try.
package undelivered

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DirectoryName is the name of the store in an agent's working directory.
const DirectoryName = "undelivered"

const (
	recordName = "record.json"
	spoolName  = "spool"
	// beginning is the prefix of a directory that is not complete.
	beginning = ".new-"
)

// Record is what is needed to speak to the service for a job.
type Record struct {
	JobID        string `json:"jobID"`
	JobToken     string `json:"jobToken"`
	ServiceURL   string `json:"serviceURL"` // as the agent reaches it
	DeploymentID string `json:"deploymentID"`
}

// Store is a directory of jobs. Its methods may be called by several processes
// at once.
type Store struct{ dir string }

// In returns the store of the agent with the given working directory. Nothing is
// made until there is something to keep.
func In(workingDirectory string) Store {
	return Store{dir: filepath.Join(workingDirectory, DirectoryName)}
}

// Put takes a copy of the spools of a job into the store. It reports false when
// there was nothing in them. A spool that lay within reach of a job may hold
// anything: only regular files of the right names are taken, up to a size that
// is far beyond any cap. Put may be called again for the same job, with others. The
// spools themselves are left as they are.
func (s Store) Put(r Record, spools ...string) (kept bool, err error) {
	name := filepath.Base(filepath.Clean("/" + r.JobID))
	if name != r.JobID || strings.HasPrefix(name, ".") || name == "/" {
		return false, fmt.Errorf("keep undelivered logs: %q is no id of a job", r.JobID)
	}
	defer func() {
		if err != nil {
			kept, err = false, fmt.Errorf("keep undelivered logs of job %s: %w", r.JobID, err)
		}
	}()
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return false, err
	}
	incoming, err := os.MkdirTemp(s.dir, beginning+"*")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(incoming)
	var copies []string
	for _, from := range spools {
		to := filepath.Join(incoming, numbered(len(copies)+1))
		n, err := copySpool(from, to)
		if err != nil {
			return false, err
		}
		if n > 0 {
			copies = append(copies, to)
		}
	}
	if len(copies) == 0 {
		return false, nil
	}
	if err := r.write(incoming); err != nil {
		return false, err
	}
	// A job that is there already may be on its way: what comes later stands
	// beside it.
	for n := 1; ; n++ {
		final := filepath.Join(s.dir, name)
		if n > 1 {
			final = fmt.Sprintf("%s.%d", final, n)
		}
		if err = os.Rename(incoming, final); err == nil || !occupied(err) {
			return err == nil, err
		}
	}
}

func numbered(n int) string {
	if n == 1 {
		return spoolName
	}
	return fmt.Sprintf("%s-%d", spoolName, n)
}

func (r Record) write(dir string) error {
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, recordName), content, 0o600)
}

// List returns the jobs of the store. An error names those that cannot be used;
// the others are returned all the same.
func (s Store) List() ([]Job, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for undelivered logs: %w", err)
	}
	var jobs []Job
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		j, err := Open(filepath.Join(s.dir, e.Name()))
		switch {
		case err == nil:
			jobs = append(jobs, j)
		case !errors.Is(err, fs.ErrNotExist): // else somebody has delivered it meanwhile
			errs = append(errs, err)
		}
	}
	return jobs, errors.Join(errs...)
}

// halfAge is how old something half put must be to be nobody's.
const halfAge = time.Hour

// Sweep removes what a Put left that was killed halfway.
func (s Store) Sweep() error {
	halves, err := filepath.Glob(filepath.Join(s.dir, beginning+"*"))
	if err != nil {
		return fmt.Errorf("sweep undelivered logs: %w", err)
	}
	var errs []error
	for _, half := range halves {
		if info, err := os.Lstat(half); err == nil && time.Since(info.ModTime()) > halfAge {
			errs = append(errs, os.RemoveAll(half))
		}
	}
	return errors.Join(errs...)
}

// Job is one job of a store.
type Job struct {
	Record
	dir string
}

// Open returns the job in a directory of a store.
func Open(dir string) (Job, error) {
	content, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return Job{}, fmt.Errorf("undelivered logs: %w", err)
	}
	j := Job{dir: dir}
	if err := json.Unmarshal(content, &j.Record); err != nil || j.JobID == "" || j.JobToken == "" || j.ServiceURL == "" {
		return Job{}, fmt.Errorf("undelivered logs: %s is no record of a job", filepath.Join(dir, recordName))
	}
	return j, nil
}
