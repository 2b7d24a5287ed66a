package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/longshore-run/longshore/e2e/restclient"
	"github.com/longshore-run/longshore/internal/api"
)

// secret is known to every job, which prints it.
const secret = "a-secret-of-many-faults/7+x"

// load is the deployments of a run.
type load struct {
	t    *torture
	user *restclient.Client

	mu    sync.Mutex
	known map[string]*deployment // by id
	err   error                  // why the load could not be carried out
}

// deployment is one that the service has accepted.
type deployment struct {
	id        string
	stack     restclient.Stack
	who       string
	cancelled bool
	end       api.Status // as it was first seen
}

func (t *torture) client() (*restclient.Client, error) {
	token, err := os.ReadFile(filepath.Join(t.Dir, "user-token"))
	if err != nil {
		return nil, err
	}
	// A killed server comes back on its address, with none of the connections.
	return &restclient.Client{
		URL: "http://" + t.address, Token: strings.TrimSpace(string(token)),
		HTTP: &http.Client{Timeout: 10 * time.Second},
	}, nil
}

func (t *torture) through() *restclient.Client { return &restclient.Client{URL: t.proxy.URL()} }

func (t *torture) newLoad() *load { return &load{t: t, known: map[string]*deployment{}} }

// kind is what a deployment is like. It depends on the seed and its number alone.
type kind struct {
	lines, rate int
	duration    time.Duration
	cancelAfter time.Duration // 0: never
}

func (t *torture) kind(number int) kind {
	dice := rand.New(rand.NewPCG(t.Seed, uint64(number)+1000))
	k := kind{
		lines:    20 + dice.IntN(400),
		rate:     100 + dice.IntN(900),
		duration: time.Duration(dice.Float64() * float64(time.Second)),
	}
	if dice.Float64() < t.Cancel {
		k.cancelAfter = time.Millisecond + time.Duration(dice.Float64()*float64(2*time.Second))
	}
	if dice.Float64() < t.Long {
		k.duration = t.LongFor + time.Duration(dice.Float64()*float64(t.LongFor))
	}
	return k
}

// run creates all deployments, a few more than the agents can take at a time,
// and waits for their ends.
func (l *load) run(ctx context.Context) {
	l.user, l.err = l.t.client()
	if l.err != nil {
		return
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	slots := make(chan struct{}, 2*l.t.Agents*l.t.Concurrency)
	var waiting sync.WaitGroup
	for number := range l.t.Deployments {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		waiting.Go(func() {
			defer func() { <-slots }()
			if err := l.one(ctx, number); err != nil {
				stop(err)
			}
		})
	}
	waiting.Wait()
	l.err = context.Cause(ctx)
}

// patience is how long a deployment may take, with all that is done to it and
// to those before it.
func (t *torture) patience() time.Duration { return 3*time.Minute + 8*t.LongFor }

func (l *load) one(parent context.Context, number int) error {
	patience := l.t.patience()
	ctx, cancel := context.WithTimeoutCause(parent, patience, fmt.Errorf("it had not ended after %s", patience))
	defer cancel()
	d, err := l.create(ctx, number)
	if err != nil {
		return fmt.Errorf("create deployment %d: %w", number, err)
	}
	if after := l.t.kind(number).cancelAfter; after > 0 {
		d.cancelled = true
		pause(ctx, after)
		var refused *api.Error
		if err := l.again(ctx, func() error { return l.user.Cancel(ctx, d.stack, d.id) }); err != nil && !errors.As(err, &refused) {
			return fmt.Errorf("cancel deployment %s: %w", d.id, err) // a refusal: it has ended
		}
	}
	for !d.end.Terminal() {
		err := l.again(ctx, func() error {
			seen, err := l.user.Get(ctx, d.stack, d.id)
			d.end = seen.Status
			return err
		})
		if err != nil || !pause(ctx, 200*time.Millisecond) {
			return fmt.Errorf("deployment %s is %s: %w", d.id, d.end, errors.Join(err, context.Cause(ctx)))
		}
	}
	return nil
}

// create creates a deployment. When the answer is lost it is created anew under
// another name: what became of the first shows in the database.
func (l *load) create(ctx context.Context, number int) (*deployment, error) {
	d := &deployment{stack: restclient.Stack(fmt.Sprintf("default/app/stack-%d", number%l.t.Stacks))}
	attempt := 0
	err := l.again(ctx, func() error {
		d.who = fmt.Sprintf("%d/%d", number, attempt)
		attempt++
		created, err := l.user.Create(ctx, d.stack, l.request(number, d.who))
		d.id = created.ID
		return err
	})
	if err == nil {
		l.mu.Lock()
		l.known[d.id] = d
		l.mu.Unlock()
	}
	return d, err
}

func (l *load) request(number int, who string) map[string]any {
	k := l.t.kind(number)
	return map[string]any{
		"operation":       "update",
		"executorContext": map[string]any{"executorImage": "unused"},
		"operationContext": map[string]any{
			"environmentVariables": map[string]any{
				"PULUMI_BACKEND_URL":        "https://api.pulumi.com",
				"PULUMI_STANDIN_RECORD":     l.t.record.address(),
				"PULUMI_STANDIN_RECORD_ENV": "WHO," + agentVariable,
				"PULUMI_STANDIN_LINES":      strconv.Itoa(k.lines),
				"PULUMI_STANDIN_RATE":       strconv.Itoa(k.rate),
				"PULUMI_STANDIN_DURATION":   k.duration.String(),
				"WHO":                       who,
				"API_KEY":                   map[string]string{"secret": secret},
			},
			"preRunCommands": []string{`printf 'name: faults\nruntime: yaml\n' > Pulumi.yaml; echo "the key is $API_KEY"`},
			"options":        map[string]any{"skipInstallDependencies": true},
		},
	}
}

// again repeats a call until the service, which is killed now and then, has
// answered it.
func (l *load) again(ctx context.Context, call func() error) error {
	for {
		err := call()
		var said *api.Error
		if err == nil || errors.As(err, &said) && said.Code < http.StatusInternalServerError {
			return err
		}
		if !pause(ctx, 50*time.Millisecond) {
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}
