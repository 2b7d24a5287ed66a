package pulumi

import (
	"sync"

	"golang.org/x/sys/unix"
)

// watch returns a channel that is closed when the process pid ends. stop frees
// what it holds and returns when it is done.
func watch(pid int) (gone <-chan struct{}, stop func()) {
	if pid <= 0 {
		return nil, func() {}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, func() {} // an old kernel, or it is gone and its id with it
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		_ = unix.Close(fd)
		return nil, func() {}
	}
	ended := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(pipe[0]), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
		for {
			if _, err := unix.Poll(fds, -1); err == unix.EINTR {
				continue
			}
			break
		}
		if fds[0].Revents != 0 {
			close(ended)
		}
	})
	return ended, func() {
		_ = unix.Close(pipe[1])
		watcher.Wait()
		_ = unix.Close(pipe[0])
		_ = unix.Close(fd)
	}
}
