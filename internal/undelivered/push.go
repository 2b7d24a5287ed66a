package undelivered

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/logstream"
)

var (
	// ErrBusy means that somebody else is delivering the logs of a job.
	ErrBusy = errors.New("somebody else is delivering these logs")
	// ErrRefused means that the service will never take the logs of a job: its
	// token has ended. They have been removed.
	ErrRefused = errors.New("the service takes no more logs of this job")
)

// Result is what a Push came to, in lines.
type Result struct {
	Delivered int64
	Lost      int64 // the service refuses them
	Left      int64 // not delivered, and still in the store
}

// Push delivers the logs of a job to sink, trying until ctx ends, and removes
// the job when that is done. It returns an error when not all was delivered: one
// that wraps ErrRefused when the service refuses the job (401, 403, 404, 410),
// which removes it, too; ErrBusy; or why ctx ended, which leaves what is left
// for the next Push.
func (j Job) Push(ctx context.Context, sink logstream.Sink, log *zap.Logger) (Result, error) {
	unlock, err := j.lock()
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	spools, err := j.spools()
	if err != nil {
		return Result{}, err
	}
	var res Result
	var refused, errs error
	for _, dir := range spools {
		s, err := logstream.Resume(logstream.Options{Sink: sink, SpoolDir: dir, Log: log})
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		lines := s.Resumed()
		err = s.Close(ctx)
		left := s.Left()
		res.Delivered += lines - left
		switch {
		case client.Gone(err):
			refused = err
			res.Lost += left
		case err != nil:
			errs = errors.Join(errs, err)
			res.Left += left
		}
	}
	switch {
	case errs != nil:
		return res, errors.Join(errs, refused)
	case refused != nil:
		return res, errors.Join(fmt.Errorf("%w: %d lines are lost: %w", ErrRefused, res.Lost, refused), os.RemoveAll(j.dir))
	}
	return res, os.RemoveAll(j.dir)
}

// Remove drops a job.
func (j Job) Remove() error {
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(j.dir)
}

// lock keeps others from delivering or removing the job until unlock is called.
func (j Job) lock() (unlock func(), err error) {
	path := filepath.Join(j.dir, recordName)
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("undelivered logs: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock undelivered logs: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

func (j Job) spools() ([]string, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("undelivered logs: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() && (e.Name() == spoolName || strings.HasPrefix(e.Name(), spoolName+"-")) {
			dirs = append(dirs, filepath.Join(j.dir, e.Name()))
		}
	}
	return dirs, nil
}
