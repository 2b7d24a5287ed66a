// Package preflight holds what an agent makes sure of on its own host before it
// asks for work: room on the disk, and a clock that agrees with the service's.
// The types are Disk and Clock; each has a Check for package poll.
package preflight

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Disk is a floor under the free space of a file system.
type Disk struct {
	Directory string // on the file system
	MinFree   int64  // bytes; 0: no floor
}

// Check reports whether enough is free for a user without privileges.
func (d Disk) Check(context.Context) error {
	if d.MinFree <= 0 {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.Directory, &fs); err != nil {
		return fmt.Errorf("cannot find out how much room is left in %s: %w", d.Directory, err)
	}
	free := float64(fs.Bavail) * float64(fs.Bsize)
	if free >= float64(d.MinFree) {
		return nil
	}
	return fmt.Errorf("%s has %s left, less than the %s of --disk-min-free: free some, or choose another --working-directory",
		d.Directory, size(free), size(float64(d.MinFree)))
}

func size(bytes float64) string {
	for _, unit := range []string{"bytes", "KiB", "MiB", "GiB"} {
		if bytes < 1024 {
			return fmt.Sprintf("%.4g %s", bytes, unit)
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%.4g TiB", bytes)
}
