package workflow_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/testkit"
	"github.com/longshore-run/longshore/internal/workflow"
)

const mib = "000000" // of a decimal number, near enough

// groups are the files of a control group, as the two versions have them, at 100
// MB of which 40 MB are used, half of that by a cache.
var groups = map[string]struct {
	proc, dir string
	files     map[string]string
	// What a script writes to fill the memory, and to be told of a kill.
	fill, kill string
}{
	"v2, in a container": {
		proc: "0::/\n", dir: ".",
		files: map[string]string{
			"memory.current": "40" + mib, "memory.peak": "61" + mib, "memory.max": "100" + mib,
			"memory.stat":   "anon 20000000\ninactive_file 10000000\nactive_file 5000000\nslab_reclaimable 5000000\n",
			"memory.events": "low 0\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n",
		},
		fill: "echo 107374182 > memory.peak; echo 106000000 > memory.current", kill: "echo oom_kill 1 > memory.events",
	},
	"v2, below the root, on a kernel that keeps no peak": {
		proc: "1:name=systemd:/x\n0::/jobs/one\n", dir: "jobs/one",
		files: map[string]string{
			"memory.current": "40" + mib, "memory.max": "100" + mib,
			"memory.stat": "inactive_file 20000000\n", "memory.events": "oom_kill 0\n",
		},
		fill: "echo 107374182 > memory.current", kill: "echo 107374182 > memory.current; echo oom_kill 1 > memory.events",
	},
	"v1, in a container that has the host's path": {
		proc: "9:name=systemd:/docker/abc\n6:cpu,memory:/docker/abc\n", dir: "memory",
		files: map[string]string{
			"memory.usage_in_bytes": "40" + mib, "memory.max_usage_in_bytes": "61" + mib, "memory.limit_in_bytes": "100" + mib,
			"memory.stat":        "inactive_file 1\ntotal_inactive_file 10000000\ntotal_active_file 10000000\n",
			"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
		},
		fill: "echo 107374182 > memory.max_usage_in_bytes; echo 106000000 > memory.usage_in_bytes", kill: "echo oom_kill 1 > memory.oom_control",
	},
}

// runWithMemory runs scripts in the directory of a control group.
func runWithMemory(t *testing.T, group string, own bool, scripts ...string) (*recorder, workflow.Result) {
	t.Helper()
	testkit.Need(t, "bash")
	g, root := groups[group], t.TempDir()
	dir := filepath.Join(root, g.dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{filepath.Join(root, "proc"): g.proc}
	for name, content := range g.files {
		files[filepath.Join(dir, name)] = content
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := job(scripts...)
	in.Directory = dir
	private := t.TempDir()
	r := newRecorder()
	o := workflow.Options{
		Reporter: r, PrivateDir: private, EnvFile: filepath.Join(private, "PULUMI_ENV"), KillGrace: 500 * time.Millisecond, OwnMemory: own,
	}
	workflow.WithMemory(&o, root, filepath.Join(root, "proc"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return r, workflow.Run(ctx, workflow.NewPlan(in), o)
}

func TestAStepIsInterruptedBeforeMemoryRunsOut(t *testing.T) {
	t.Parallel()
	for name, g := range groups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, res := runWithMemory(t, name, true,
				"trap 'echo saved; exit 255' INT; echo ready; "+g.fill+"; while :; do sleep 0.05; done", "echo never")
			if res.Outcome != api.OutcomeOutOfMemory || !strings.Contains(res.Message, "out of memory (limit 95 MiB, peak 102 MiB) in step 1") {
				t.Errorf("result = %+v", res)
			}
			if diff := cmp.Diff([]string{"1 running", "1 failed"}, r.states); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
			rest := r.log(1)
			for _, want := range []string{
				"ready\nlongshore: warning: this job uses ", " MiB of its 95 MiB of memory (85% and more)\n",
				"longshore: out of memory soon: sent an interrupt (SIGINT), the step has 10s to finish\n", "saved\n",
				"longshore: the command exited with code 255\n",
				"longshore: out of memory (limit 95 MiB, peak 102 MiB): the step was ended before",
			} {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("log lacks %q in its place:\n%s", want, r.log(1))
				}
				rest = after
			}
			if strings.Count(r.log(1), "warning:") != 1 || strings.Count(rest, "\n") != 1 {
				t.Errorf("log = %s", r.log(1))
			}
		})
	}
}

func TestWhatTheKernelCanTakeBackIsNotUsed(t *testing.T) {
	t.Parallel()
	// All but 20 MB of it are the cache of files.
	r, res := runWithMemory(t, "v2, in a container", true,
		"echo inactive_file 60000000 > memory.stat; echo active_file 19000000 >> memory.stat; echo 99000000 > memory.current; sleep 1")
	if res.Outcome != api.OutcomeSucceeded || strings.Contains(r.log(1), "longshore:") {
		t.Errorf("result = %+v, log %s", res, r.log(1))
	}
}

func TestTheKernelKilledAPartOfAStep(t *testing.T) {
	t.Parallel()
	const group = "v1, in a container that has the host's path"
	kill := groups[group].kill
	for name, c := range map[string]struct {
		script  string
		own     bool
		outcome api.Outcome
		log     string // its end
	}{
		"the step itself":                         {kill + "; kill -9 $$", true, api.OutcomeOutOfMemory, "was ended by a signal (killed)\nlongshore: out of memory (limit 95 MiB, peak 58 MiB): the kernel killed a process of this step."},
		"a child, and the step fails":             {kill + "; exit 137", true, api.OutcomeOutOfMemory, "exited with code 137\nlongshore: out of memory (limit 95 MiB, peak 58 MiB): the kernel"},
		"a child, and the step does not notice":   {kill + "; echo done", true, api.OutcomeOutOfMemory, "\ndone\nlongshore: out of memory (limit 95 MiB, peak 58 MiB): the kernel"},
		"pulumi leaves its stack locked":          {"pulumi () { " + kill + "; kill -9 $$; }\npulumi up", true, api.OutcomeOutOfMemory, "pulumi refresh --stack <organization/project/stack>\nlongshore: the command was ended by a signal (killed)\nlongshore: out of memory"},
		"somebody else's, where memory is shared": {kill + "; echo done", false, api.OutcomeSucceeded, "\ndone\n"},
		"ours, where memory is shared":            {kill + "; kill -9 $$", false, api.OutcomeOutOfMemory, "longshore: out of memory (limit 95 MiB, peak 58 MiB): the kernel"},
		"another failure, where memory is shared": {kill + "; exit 3", false, api.OutcomeStepFailed, "exited with code 3\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, res := runWithMemory(t, group, c.own, c.script)
			_, after, ok := strings.Cut(r.log(1), c.log)
			if res.Outcome != c.outcome || !ok || strings.Count(after, "\n") > 1 {
				t.Errorf("result = %+v, log %s", res, r.log(1))
			}
			if c.outcome == api.OutcomeOutOfMemory && !strings.Contains(res.Message, "out of memory (limit 95 MiB, peak 58 MiB) in step 1") {
				t.Errorf("message = %q", res.Message)
			}
		})
	}
}

func TestAMachineWithoutControlGroups(t *testing.T) {
	t.Parallel()
	groups := t.TempDir()
	r := newRecorder()
	o := workflow.Options{Reporter: r, PrivateDir: t.TempDir(), EnvFile: filepath.Join(t.TempDir(), "PULUMI_ENV"), OwnMemory: true}
	workflow.WithMemory(&o, groups, filepath.Join(groups, "none"))
	in := job("kill -9 $$")
	in.Directory = t.TempDir()
	if res := workflow.Run(t.Context(), workflow.NewPlan(in), o); res.Outcome != api.OutcomeStepFailed || strings.Contains(r.log(1), "memory") {
		t.Errorf("result = %+v, log %s", res, r.log(1))
	}
}
