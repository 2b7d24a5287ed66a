package executor

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// reportFile keeps the Report of a job up to date in a file. A reader sees the
// old one or the new one, never half of one. A report that cannot be written is
// no reason to stop a job.
type reportFile struct {
	path string
	log  *zap.Logger

	mu     sync.Mutex
	report api.Report
}

func (f *reportFile) step(index int, s api.StepStatus) {
	f.change(func(r *api.Report) { r.Step, r.Status, r.Delivered = index, s, false })
}

func (f *reportFile) end(o api.Outcome, message string, cache api.CacheOutcomes) {
	f.change(func(r *api.Report) { r.Outcome, r.Message, r.Cache = o, message, cache })
}

func (f *reportFile) signalled() {
	f.change(func(r *api.Report) { r.Signalled = true })
}

func (f *reportFile) delivered() {
	f.change(func(r *api.Report) { r.Delivered = true })
}

func (f *reportFile) change(how func(*api.Report)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(&f.report)
	if f.path == "" {
		return
	}
	if err := f.write(); err != nil {
		f.log.Error("report cannot be written", zap.Error(err))
	}
}

// say writes the report as it is now to w, as one line.
func (f *reportFile) say(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w == nil {
		return
	}
	if err := json.NewEncoder(w).Encode(f.report); err != nil {
		f.log.Error("report cannot be printed", zap.Error(err))
	}
}

func (f *reportFile) write() error {
	content, err := json.Marshal(f.report)
	if err != nil {
		return err
	}
	// The directory is the job's own; a name that is always the same leaves
	// nothing behind when we are killed in between.
	temporary := filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+".new")
	_ = os.Remove(temporary)
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, f.path)
}
