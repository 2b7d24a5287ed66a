package notice

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// azure asks the scheduled events of Azure's instance metadata service. It never
// approves one: the machine goes when its time has come.
type azure struct {
	meta    *metadata
	machine string // its name; empty: not known yet
}

func (*azure) name() string { return Azure }

func (a *azure) there(ctx context.Context) error {
	const path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
	name, err := a.get(ctx, path)
	if err != nil {
		return err
	}
	if a.machine = name; name == "" {
		return fmt.Errorf("metadata %s: the machine has no name", path)
	}
	return nil
}

func (a *azure) get(ctx context.Context, path string) (string, error) {
	got, err := a.meta.ask(ctx, http.MethodGet, path, "Metadata", "true")
	if err != nil {
		return "", err
	}
	if got.status != http.StatusOK {
		return "", got.unexpected(path)
	}
	return got.text, nil
}

func (a *azure) look(ctx context.Context) ([]Notice, error) {
	const path = "/metadata/scheduledevents?api-version=2020-07-01"
	text, err := a.get(ctx, path)
	if err != nil {
		return nil, err
	}
	var document struct {
		Events []struct {
			EventID     string `json:"EventId"`
			EventType   string
			Resources   []string
			EventStatus string
			NotBefore   string
			Description string
		}
	}
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	var notices []Notice
	for _, e := range document.Events {
		kind, ends := azureKind(e.EventType)
		// The events of a whole set of machines are in the document.
		if !ends || !slices.ContainsFunc(e.Resources, func(r string) bool { return strings.EqualFold(r, a.machine) }) {
			continue
		}
		n := Notice{Kind: kind, Detail: strings.TrimSuffix(e.EventType+": "+e.Description, ": "), id: e.EventID}
		if at, err := http.ParseTime(e.NotBefore); err == nil {
			n.At = at
		} else if e.EventStatus == "Started" {
			n.At = time.Now()
		}
		notices = append(notices, n)
	}
	return notices, nil
}

// azureKind returns what an event is for us, and whether it ends what runs on
// the machine: a freeze is over after seconds.
func azureKind(event string) (kind Kind, ends bool) {
	switch event {
	case "Preempt":
		return Reclaimed, true
	case "Terminate":
		return ScaleIn, true
	case "Reboot", "Redeploy":
		return Maintenance, true
	}
	return "", false
}
