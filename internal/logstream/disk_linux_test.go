package logstream_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/logstream"
	"github.com/longshore-run/longshore/internal/testkit"
)

// TestADiskThatIsFull: the job waits for a while, then it goes on; the log says
// what is missing.
func TestADiskThatIsFull(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "root")
	dir := t.TempDir()
	if err := syscall.Mount("longshore-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs to mount a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	service := newService()
	service.setFault(func(int, api.LogBatch) error { return errors.New("away") })
	o := small(logstream.SinkFunc(service.take), dir+"/spool")
	o.Patience = 50 * time.Millisecond
	s := logstream.New(o)
	const n = 20_000
	print(s, 1, 0, n) // some 1.8 MB
	service.setFault(nil)
	mustClose(t, s)
	there, missing, _ := check(t, service.lines(1))
	if there+missing != n || missing == 0 || there < 2000 {
		t.Errorf("%d lines there, %d missing", there, missing)
	}
	log := service.lines(1)
	if last := log[len(log)-1]; !strings.HasPrefix(last, fmt.Sprintf("%06d ", n-1)) {
		t.Errorf("the last line is %q", last)
	}
	if texts, _, bytes := gaps(t, log); bytes == 0 {
		t.Errorf("gaps: %q", texts)
	}
}
