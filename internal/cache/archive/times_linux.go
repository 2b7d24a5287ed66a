package archive

import (
	"errors"

	"golang.org/x/sys/unix"
)

// setTimes sets the times of an open file, which spares the way to it by its
// name. It reports false when the kernel cannot (Linux before 5.8).
func setTimes(fd int, spec unix.Timespec) (bool, error) {
	err := unix.UtimesNanoAt(fd, "", []unix.Timespec{spec, spec}, unix.AT_EMPTY_PATH)
	return !errors.Is(err, unix.EINVAL), err
}
