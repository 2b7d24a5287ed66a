package faults

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// found is a process of a job, as the machine shows it.
type found struct {
	pid       int
	container string // in whose place it is, on the docker target
	job       string // its id
	executor  bool   // the executor itself, and not what it started
}

// host is the target whose jobs are processes.
type host struct{ dir, standin string }

func (h host) flags() []string { return []string{"--deploy-target", "process"} }

func (h host) environment() []string {
	return []string{"PATH=" + filepath.Dir(h.standin) + ":" + os.Getenv("PATH")}
}

func (h host) executors(context.Context) ([]found, error) {
	var executors []found
	for _, p := range processes(h.dir) {
		if p.executor {
			executors = append(executors, p)
		}
	}
	return executors, nil
}

func (h host) kill(_ context.Context, executor found) error {
	return syscall.Kill(executor.pid, syscall.SIGKILL)
}

func (h host) left(context.Context) (left []string, err error) {
	for _, p := range processes(h.dir) {
		left = append(left, fmt.Sprintf("process %d of job %s", p.pid, p.job))
	}
	return left, nil
}

// processes finds the living processes of all jobs below dir: executors by
// their command line, others by the mark that they inherit.
func processes(dir string) []found {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []found
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err != nil || len(environ) == 0 { // gone, or a zombie
			continue
		}
		mark := variable(environ, "LONGSHORE_JOB_DIRECTORY")
		if !strings.HasPrefix(mark, dir+string(filepath.Separator)) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		all = append(all, found{pid: pid, job: filepath.Base(mark), executor: bytes.Contains(line, []byte("longshore-executor\x00run\x00"))})
	}
	return all
}

func variable(environ []byte, name string) string {
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}

// files lists what is left of jobs in the directories of agents.
func files(dir string, agents int) []string {
	var left []string
	for i := range agents {
		for _, kind := range []string{"jobs", "spool"} {
			parent := filepath.Join(dir, agentName(i), kind)
			entries, _ := os.ReadDir(parent)
			for _, entry := range entries {
				left = append(left, filepath.Join(parent, entry.Name()))
			}
		}
	}
	return left
}

// search looks for needles in every file below dir and returns where they are,
// and how many bytes it looked at. Files named in except are left out.
func search(dir string, needles []string, except func(path string) bool) (hits []string, bytesRead int64) {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || except(path) {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		bytesRead += int64(len(content))
		for _, needle := range needles {
			if bytes.Contains(content, []byte(needle)) {
				hits = append(hits, path)
			}
		}
		return nil
	})
	return hits, bytesRead
}
