// Package notice hears from the cloud that the machine it runs on is about to
// go: a spot instance that is reclaimed, a scale-in, maintenance that stops it.
// It asks the machine's metadata service and changes nothing there; what to do
// about a notice is its caller's business. The main type is Watcher.
package notice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Notice says that this machine is about to go.
type Notice struct {
	Kind   Kind
	Detail string // in the cloud's words
	// At is when the machine goes, as far as the cloud tells; zero when it does
	// not. It may be over.
	At time.Time

	id string // the same for the same notice
}

// Kind is why a machine goes.
type Kind string

// The kinds of notices.
const (
	Reclaimed   Kind = "reclaimed"   // the cloud takes a spot machine back
	Rebalance   Kind = "rebalance"   // it probably will, soon
	ScaleIn     Kind = "scale-in"    // its group no longer wants it
	Maintenance Kind = "maintenance" // it is stopped, restarted or moved with an interruption
)

// The clouds, for Options.Cloud.
const (
	AWS   = "aws"
	GCP   = "gcp"
	Azure = "azure"
	Auto  = "auto" // whichever answers
)

// Clouds returns what Options.Cloud may be.
func Clouds() []string { return []string{AWS, GCP, Azure, Auto} }

// Options configure a Watcher. Cloud is needed; the zero value of the others is
// a default.
type Options struct {
	Cloud    string
	BaseURL  string        // of the metadata service; default http://169.254.169.254
	Interval time.Duration // between two questions; default 5s
	Log      *zap.Logger
}

// findInterval is the time between two searches for a metadata service.
const findInterval = time.Minute

// Watcher asks the metadata service for notices.
type Watcher struct {
	o      Options
	clouds []cloud // that may be the machine's
	meta   *metadata
	told   map[string]bool // by id
}

// cloud is how one cloud's metadata service is asked.
type cloud interface {
	name() string
	// there reports, by its error, whether this cloud's service answers.
	there(ctx context.Context) error
	// look returns all notices that hold at the moment.
	look(ctx context.Context) ([]Notice, error)
}

// New returns a Watcher that asks nobody yet.
func New(o Options) (*Watcher, error) {
	if o.BaseURL == "" {
		o.BaseURL = "http://169.254.169.254"
	}
	if o.Interval <= 0 {
		o.Interval = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	meta := newMetadata(strings.TrimRight(o.BaseURL, "/"))
	w := &Watcher{o: o, meta: meta, told: map[string]bool{}}
	for _, c := range []cloud{&aws{meta: meta}, gcp{meta}, &azure{meta: meta}} {
		if o.Cloud == Auto || o.Cloud == c.name() {
			w.clouds = append(w.clouds, c)
		}
	}
	if len(w.clouds) == 0 {
		return nil, fmt.Errorf("cloud %q: want %s", o.Cloud, strings.Join(Clouds(), ", "))
	}
	return w, nil
}

// Run asks until ctx ends and calls tell once for each notice. A metadata service
// that does not answer is no error: it is asked again.
func (w *Watcher) Run(ctx context.Context, tell func(Notice)) {
	defer w.meta.close()
	found := w.find(ctx)
	if found == nil {
		return
	}
	w.o.Log.Debug("watching for notices of the cloud", zap.String("cloud", found.name()))
	failing := false
	for ctx.Err() == nil {
		notices, err := found.look(ctx)
		if (err != nil) != failing && ctx.Err() == nil {
			failing = err != nil
			w.o.Log.Debug("metadata service of the cloud", zap.Bool("answers", !failing), zap.Error(err))
		}
		for _, n := range notices { // those that were found before an error, too
			if !w.told[n.id] {
				w.told[n.id] = true
				tell(n)
			}
		}
		sleep(ctx, w.o.Interval)
	}
}

// find returns the machine's cloud, nil when ctx ends first.
func (w *Watcher) find(ctx context.Context) cloud {
	for ctx.Err() == nil {
		var errs []error
		i := slices.IndexFunc(w.clouds, func(c cloud) bool {
			err := c.there(ctx)
			errs = append(errs, err)
			return err == nil
		})
		if i >= 0 {
			return w.clouds[i]
		}
		w.o.Log.Debug("no metadata service of a cloud answers", zap.Error(errors.Join(errs...)))
		sleep(ctx, findInterval)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
