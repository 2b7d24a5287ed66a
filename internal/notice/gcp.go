package notice

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// How long before the event the notice of Compute Engine comes.
const (
	preemptionTime  = 30 * time.Second
	maintenanceTime = time.Minute
)

// gcp asks the metadata server of Compute Engine.
type gcp struct{ meta *metadata }

func (gcp) name() string { return GCP }

func (g gcp) there(ctx context.Context) error {
	_, err := g.get(ctx, "instance/maintenance-event")
	return err
}

func (g gcp) get(ctx context.Context, path string) (string, error) {
	const header, value = "Metadata-Flavor", "Google"
	path = "/computeMetadata/v1/" + path
	got, err := g.meta.ask(ctx, http.MethodGet, path, header, value)
	if err != nil {
		return "", err
	}
	if got.status != http.StatusOK || got.header.Get(header) != value {
		return "", got.unexpected(path)
	}
	return got.text, nil
}

func (g gcp) look(ctx context.Context) ([]Notice, error) {
	var notices []Notice
	preempted, err := g.get(ctx, "instance/preempted")
	if preempted == "TRUE" {
		notices = append(notices, Notice{
			Kind: Reclaimed, Detail: "the instance is being preempted", At: time.Now().Add(preemptionTime), id: "preempted",
		})
	}
	event, eventErr := g.get(ctx, "instance/maintenance-event")
	// A live migration (MIGRATE_ON_HOST_MAINTENANCE) goes by unnoticed.
	if event == "TERMINATE_ON_HOST_MAINTENANCE" {
		notices = append(notices, Notice{
			Kind: Maintenance, Detail: event, At: time.Now().Add(maintenanceTime), id: event,
		})
	}
	return notices, errors.Join(err, eventErr)
}
