package docker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// pullMessage is one message of the engine's pull stream.
type pullMessage struct {
	ID             string `json:"id"`
	Status         string `json:"status"`
	ProgressDetail struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Error       string `json:"error"`
	ErrorDetail struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// progressInterval is how often the lines of layers are written.
const progressInterval = time.Second

// progress turns a pull stream into lines for people: what concerns the whole
// image at once, a layer's state when it has changed and at most once a second.
type progress struct {
	out   io.Writer
	now   func() time.Time
	last  time.Time
	order []string          // layers, in the order of their first message
	state map[string]string // line of each layer
	wrote map[string]string // line of each layer as written last
}

// copyProgress reads a pull stream to its end. The engine reports the failure
// of a pull as a message; it becomes the error.
func copyProgress(out io.Writer, stream io.Reader, now func() time.Time) error {
	p := &progress{out: out, now: now, last: now(), state: map[string]string{}, wrote: map[string]string{}}
	defer p.flush()
	decoder := json.NewDecoder(stream)
	for {
		var m pullMessage
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if text := cmp.Or(m.ErrorDetail.Message, m.Error); text != "" {
			return errors.New(text)
		}
		p.add(m)
	}
}

func (p *progress) add(m pullMessage) {
	if m.ID == "" || strings.HasPrefix(m.Status, "Pulling from ") {
		p.flush()
		fmt.Fprintln(p.out, m.Status)
		return
	}
	if _, known := p.state[m.ID]; !known {
		p.order = append(p.order, m.ID)
	}
	line := m.ID + ": " + m.Status
	if m.ProgressDetail.Total > 0 {
		line += fmt.Sprintf(" %s of %s", units.HumanSize(float64(m.ProgressDetail.Current)), units.HumanSize(float64(m.ProgressDetail.Total)))
	}
	p.state[m.ID] = line
	if p.now().Sub(p.last) >= progressInterval {
		p.flush()
	}
}

// flush writes the layers that changed since the last time.
func (p *progress) flush() {
	p.last = p.now()
	for _, layer := range p.order {
		if p.wrote[layer] != p.state[layer] {
			fmt.Fprintln(p.out, p.state[layer])
			p.wrote[layer] = p.state[layer]
		}
	}
}
