package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/cache"
	"github.com/longshore-run/longshore/internal/deps"
	"github.com/longshore-run/longshore/internal/executor"
)

// cacheMemoryLimit makes the garbage collector work harder while archives are
// made and read.
const cacheMemoryLimit = 64 << 20

func (p *program) cache() *cobra.Command {
	parent := lenient(&cobra.Command{
		Use:   "cache",
		Short: "Keep what package managers downloaded for the next deployment",
		Long: "Keep what package managers downloaded for the next deployment. Each entry gets one line that says what came of it.\n" +
			"Whatever goes wrong, these commands end with 0: a deployment does not fail because of its cache.\n\n" +
			"The cache is the one that the file LONGSHORE_CACHE_FILE names, else that of the service: LONGSHORE_SERVICE_URL with\n" +
			"LONGSHORE_JOB_TOKEN, else PULUMI_BACKEND_URL with PULUMI_ACCESS_TOKEN. What was restored is remembered for the\n" +
			"commands that follow in the file LONGSHORE_CACHE_STATE, where the executor also finds what to tell the agent's metrics.",
		RunE: unknownCommand,
	})
	add := func(use, short string, do func(j *jobCache, ctx context.Context, dir string)) {
		var dir, stack string
		c := lenient(&cobra.Command{
			Use:   use,
			Short: short,
			Args:  cobra.ArbitraryArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				return untilSignal(c.Context(), func(ctx context.Context) error {
					debug.SetMemoryLimit(cacheMemoryLimit)
					j, err := p.openCache(stack)
					if err != nil {
						p.say("", cache.Recipe{}.Skip(err.Error()))
						return nil //nolint:nilerr // it has been said
					}
					defer j.close()
					do(j, ctx, dir)
					return nil
				})
			},
		})
		c.Flags().StringVar(&dir, "workDir", ".", "directory of the project")
		c.Flags().StringVar(&stack, "stackIdentity", "", "organization/project/stack")
		parent.AddCommand(c)
	}
	add("restore", "Restore what earlier deployments of a stack kept", (*jobCache).restore)
	add("save", "Keep what was installed for later deployments of a stack", (*jobCache).save)
	return parent
}

// say prints the one line of an entry.
func (p *program) say(manager string, o cache.Outcome) {
	if manager != "" {
		manager += ": "
	}
	fmt.Fprintf(p.stdout, "cache: %s%s\n", manager, o)
}

// jobCache is the dependency cache as a job uses it.
type jobCache struct {
	*program
	client *client.Client // nil when there is no service
	cache  *cache.Cache
	off    string // why there is no cache
}

func (j *jobCache) close() {
	j.cache.Close()
	if j.client != nil {
		j.client.CloseIdle()
	}
}

// openCache finds the cache of the job.
func (p *program) openCache(stack string) (*jobCache, error) {
	way, err := p.cacheService(stack)
	if err != nil {
		return nil, err
	}
	j := &jobCache{program: p, off: way.Off}
	options := cache.Options{Off: way.Off}
	if way.Off == "" {
		parts := strings.Split(way.Stack, "/")
		if len(parts) != 3 || slices.Contains(parts, "") {
			return nil, fmt.Errorf("the stack is called %q: want organization/project/stack", way.Stack)
		}
		j.client, err = client.New(client.Options{
			BaseURL: way.URL, UserAgent: "longshore-executor/" + version,
			RetryWait: time.Second, RetryMaxWait: 5 * time.Second,
		})
		if err != nil {
			return nil, fmt.Errorf("address of the cache: %w", err)
		}
		options.Service = cache.NewHTTP(j.client.Stack(parts[0], parts[1], parts[2], way.Token))
	}
	j.cache, err = cache.New(options)
	return j, err
}

// cacheService returns how the cache is reached: the agent's, or the service's.
func (p *program) cacheService(stack string) (api.JobCache, error) {
	if file := p.getenv(executor.EnvCacheFile); file != "" {
		var way api.JobCache
		content, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(content, &way)
		}
		if err != nil {
			return way, fmt.Errorf("how the agent's cache is reached: %w", err)
		}
		return way, nil
	}
	for _, names := range [][2]string{{"LONGSHORE_SERVICE_URL", "LONGSHORE_JOB_TOKEN"}, {"PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN"}} {
		way := api.JobCache{URL: p.getenv(names[0]), Token: p.getenv(names[1]), Stack: stack}
		if way.URL != "" && way.Token != "" {
			return way, nil
		}
	}
	return api.JobCache{}, errors.New("no service is known: PULUMI_BACKEND_URL and PULUMI_ACCESS_TOKEN are not both set")
}

// plugins is the manager of the recipe of Pulumi's plugins.
const plugins = "plugins"

// keptState is what the cache commands of a job and its installation tell each
// other, and the executor.
type keptState struct {
	executor.CacheState
	Entries []keptEntry `json:"entries"`
	Failed  bool        `json:"failed,omitempty"` // the installation did
}

type keptEntry struct {
	Recipe   deps.Recipe   `json:"recipe"`
	Restored cache.Outcome `json:"restored"`
	Names    []string      `json:"names,omitempty"` // of plugins: in the folders, once they were restored
}

// count adds what came of an entry to what the agent's metrics get.
func (s *keptState) count(action api.CacheAction, manager string, o cache.Outcome) {
	counted := api.CacheOutcome{Action: action, Manager: manager, Took: api.Duration(o.Took.Round(time.Millisecond))}
	switch o.Result {
	case cache.Hit:
		counted.Result, counted.Bytes = api.CacheHit, o.Size
	case cache.PartialHit:
		counted.Result, counted.Bytes = api.CachePartial, o.Size
	case cache.Saved:
		counted.Result, counted.Bytes = api.CacheSaved, o.Size
	case cache.Miss:
		counted.Result = api.CacheMiss
	default:
		counted.Result = api.CacheSkipped
	}
	s.Outcomes = append(s.Outcomes, counted)
}

// installed reports whether what an installer made is in its place.
func (s keptState) installed() bool {
	return slices.ContainsFunc(s.Entries, func(e keptEntry) bool {
		return e.Recipe.Installed && e.Restored.Result == cache.Hit
	})
}

// readState returns nil when nothing was remembered.
func (p *program) readState() *keptState {
	content, err := os.ReadFile(p.getenv(executor.EnvCacheState))
	if err != nil {
		return nil
	}
	var s keptState
	if json.Unmarshal(content, &s) != nil {
		return nil
	}
	return &s
}

func (p *program) writeState(s *keptState) error {
	path := p.getenv(executor.EnvCacheState)
	if path == "" || s == nil {
		return nil
	}
	content, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember what came of it: %w", err)
	}
	return nil
}

func (j *jobCache) restore(ctx context.Context, dir string) {
	if j.off != "" {
		j.say("", cache.Outcome{Result: cache.Off, Reason: j.off})
		return
	}
	recipes, err := j.recipes(ctx, dir)
	if err != nil {
		j.say("", cache.Recipe{}.Skip(err.Error()))
		return
	}
	if len(recipes) == 0 {
		j.say("", cache.Recipe{}.Skip("this project needs no packages and no plugins"))
	}
	state := &keptState{}
	if before := j.readState(); before != nil { // of another project of the job
		state.CacheState = before.CacheState
	}
	for _, r := range recipes {
		e := keptEntry{Recipe: r}
		switch why := j.unfit(r); {
		case why != "":
			e.Restored = recipe(r).Skip(why)
		case r.Otherwise && state.installed():
			e.Restored = recipe(r).Skip("not needed, because what was installed is there")
		default:
			e.Restored = j.cache.Restore(ctx, recipe(r))
			if e.Restored.Result == cache.Hit {
				if err := deps.Settle(r); err != nil {
					e.Restored.Result, e.Restored.Reason = cache.Miss, "it cannot be used here: "+err.Error()
				}
			}
			if r.Manager == plugins {
				e.Names = names(r)
			}
		}
		j.say(r.Manager, e.Restored)
		state.count(api.CacheRestore, r.Manager, e.Restored)
		state.Entries = append(state.Entries, e)
	}
	if err := j.writeState(state); err != nil {
		j.say("", cache.Recipe{}.Skip(err.Error()))
	}
}

func (j *jobCache) save(ctx context.Context, dir string) {
	if j.off != "" {
		j.say("", cache.Outcome{Result: cache.Off, Reason: j.off})
		return
	}
	state := j.readState()
	if state == nil {
		state = &keptState{}
	}
	entries := state.Entries
	if len(entries) == 0 { // nothing was restored
		recipes, err := j.recipes(ctx, dir)
		if err != nil {
			j.say("", cache.Recipe{}.Skip(err.Error()))
			return
		}
		for _, r := range recipes {
			entries = append(entries, keptEntry{Recipe: r})
		}
	}
	for _, e := range entries {
		r, restored := recipe(e.Recipe), e.Restored
		have := names(e.Recipe)
		// Plugins come as the operation asks for them, whatever the key says.
		if r.Manager == plugins && restored.Result == cache.Hit && !slices.Equal(have, e.Names) {
			restored = cache.Outcome{}
		}
		var o cache.Outcome
		switch {
		case state.Failed:
			o = r.Skip("the installation failed")
		case restored.Result == cache.Skipped:
			o = r.Skip(restored.Reason)
		case len(have) == 0:
			o = r.Skip("there is nothing to keep")
		default:
			o = j.cache.Save(ctx, r, restored)
		}
		j.say(r.Manager, o)
		state.count(api.CacheSave, r.Manager, o)
	}
	if err := j.writeState(state); err != nil {
		j.say("", cache.Recipe{}.Skip(err.Error()))
	}
}

func (j *jobCache) recipes(ctx context.Context, dir string) ([]deps.Recipe, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root := deps.Root(dir)
	version, err := deps.Version(ctx, dir, root, j.environ)
	if err != nil {
		return nil, err
	}
	return deps.Recipes(dir, root, deps.Place{Env: j.environ, OS: runtime.GOOS, Arch: runtime.GOARCH, Version: version, Root: os.Geteuid() == 0})
}

// unfit says why a recipe is neither restored nor saved.
func (j *jobCache) unfit(r deps.Recipe) string {
	job := j.getenv("LONGSHORE_JOB_DIRECTORY") // of a job that has no container of its own
	for _, f := range r.Folders {
		if job != "" {
			if below, err := filepath.Rel(job, f.Path); err != nil || !filepath.IsLocal(below) {
				return f.Path + " belongs to the host, and stays there from job to job"
			}
		}
		if !r.Installed {
			continue
		}
		if _, err := os.Lstat(f.Path); !errors.Is(err, fs.ErrNotExist) {
			return f.Path + " is there already"
		}
	}
	return ""
}

func recipe(r deps.Recipe) cache.Recipe {
	out := cache.Recipe{Manager: r.Manager, Key: r.Key, Prefix: r.Prefix}
	for _, f := range r.Folders {
		out.Folders = append(out.Folders, cache.Folder{Name: f.Name, Path: f.Path, Merge: f.Merge})
	}
	return out
}

// names returns what lies in the folders of a recipe.
func names(r deps.Recipe) []string {
	var all []string
	for _, f := range r.Folders {
		entries, err := os.ReadDir(f.Path)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			all = append(all, f.Name+"/"+entry.Name())
		}
	}
	return all
}
