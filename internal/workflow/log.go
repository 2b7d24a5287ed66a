package workflow

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// ownLine starts each line of a step's log that is ours and not the command's.
const ownLine = "longshore: "

// stepLog is the log of one step: the command's output, and lines of our own
// that never continue a line of the command's.
type stepLog struct {
	out io.WriteCloser

	mu  sync.Mutex
	mid bool // the last byte written was no newline
}

// Write passes output of the command on.
func (l *stepLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(b) > 0 {
		l.mid = b[len(b)-1] != '\n'
	}
	return l.out.Write(b)
}

// command writes the first line of a step's log (PROTOCOL 3.3).
func (l *stepLog) command(script string) {
	text := "$ " + script
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, _ = l.Write([]byte(text))
}

// say writes a line of our own.
func (l *stepLog) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := ownLine + fmt.Sprintf(format, args...) + "\n"
	if l.mid {
		text = "\n" + text
	}
	l.mid = false
	_, _ = io.WriteString(l.out, text)
}
