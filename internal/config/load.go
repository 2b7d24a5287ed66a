package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/knadh/koanf/maps"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// FileNames are the names a configuration file may have, the one that wins
// first.
func FileNames() []string {
	return []string{"longshore-agent.yaml", "pulumi-workflow-agent.yaml", "pulumi-deployment-agent.yaml"}
}

// Input is where a configuration comes from.
type Input struct {
	// Flags is a parsed set that AddFlags has filled, nil for none.
	Flags *pflag.FlagSet
	// Environ is the environment, in the form of os.Environ.
	Environ []string
	// File is the file to read. When it is empty, LONGSHORE_AGENT_CONFIG is
	// looked at, then the first file found in Directories is read; none need be
	// there.
	File string
	// Directories are searched for FileNames, in order.
	Directories []string
}

// SearchPath returns the directories in which a file is looked for: the current
// one, the user's home, /etc, and the one of the program itself.
func SearchPath(home, program string) []string {
	dirs := []string{"."}
	if home != "" {
		dirs = append(dirs, home)
	}
	dirs = append(dirs, "/etc")
	if program != "" {
		dirs = append(dirs, filepath.Dir(program))
	}
	return dirs
}

// Result is a configuration and what there is to say about it.
type Result struct {
	Agent Agent
	// File is the configuration file that was read, empty for none.
	File string
	// Warnings are for the log at start, one line each: unknown keys, and keys
	// that are not acted on.
	Warnings []string
}

// Load reads the configuration. Its error joins every mistake, each with the
// place where it was made.
func Load(in Input) (Result, error) {
	l, err := newLoader(in)
	if err != nil {
		return Result{}, err
	}

	result := Result{File: l.file}
	var errs []error
	bad := map[string]bool{} // keys whose mistake is known: one mistake, one line
	for _, o := range Options() {
		field := o.field(&result.Agent)
		if o.Default != "" {
			if err := assign(field, o.Default); err != nil {
				panic("config: default of " + o.Key + ": " + err.Error())
			}
		}
		if !l.set(o.Key) {
			continue
		}
		if err := assign(field, l.k.Get(o.Key)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w (%s)", o.Key, err, l.at(o.Key)))
			bad[o.Key] = true
		}
		if o.Unused != "" {
			l.warnings = append(l.warnings, fmt.Sprintf("%s is ignored: %s (%s)", o.Key, o.Unused, l.at(o.Key)))
		}
	}
	errs = append(errs, result.Agent.finish(l, bad)...)
	result.Warnings = l.warnings
	return result, errors.Join(errs...)
}

// WorkingDirectory returns the working directory of the agent that in configures,
// for programs that talk to that agent: the rest of the configuration may be
// missing or wrong.
func WorkingDirectory(in Input) (string, error) {
	const key = "working_directory"
	l, err := newLoader(in)
	if err != nil {
		return "", err
	}
	var a Agent
	if l.set(key) {
		if err := assign(&a.WorkingDirectory, l.k.Get(key)); err != nil {
			return "", fmt.Errorf("%s: %w (%s)", key, err, l.at(key))
		}
	}
	a.chooseDirectory(l)
	return a.WorkingDirectory, nil
}

// sources answers where values came from.
type sources interface {
	set(key string) bool
	layer(key string) int
	at(key string) string
	getenv(name string) string
}

// The layers, the one that wins last.
const (
	layerDefault = iota
	layerFile
	layerEnv
	layerFlag
)

type origin struct {
	layer int
	at    string
}

// loader lays flags over environment over file and remembers what came from
// where.
type loader struct {
	k        *koanf.Koanf
	origin   map[string]origin
	known    map[string]Option
	env      map[string]string
	file     string
	warnings []string
}

// newLoader reads what there is to read.
func newLoader(in Input) (*loader, error) {
	l := &loader{
		k: koanf.New("."), origin: map[string]origin{},
		known: map[string]Option{}, env: map[string]string{},
	}
	for _, o := range Options() {
		l.known[o.Key] = o
	}
	for _, entry := range in.Environ {
		name, value, _ := strings.Cut(entry, "=")
		l.env[name] = value
	}
	return l, l.read(in)
}

func (l *loader) set(key string) bool       { return l.origin[key].layer > layerDefault }
func (l *loader) layer(key string) int      { return l.origin[key].layer }
func (l *loader) getenv(name string) string { return l.env[name] }

func (l *loader) at(key string) string {
	if o, ok := l.origin[key]; ok {
		return o.at
	}
	return "default"
}

func (l *loader) read(in Input) error {
	if err := l.readFile(in); err != nil {
		return err
	}
	if err := l.readEnv(); err != nil {
		return err
	}
	if in.Flags == nil {
		return nil
	}
	byFlag := map[string]string{}
	for _, o := range l.known {
		byFlag[o.Flag()] = o.Key
	}
	return l.k.Load(posflag.ProviderWithFlag(in.Flags, ".", nil, func(f *pflag.Flag) (string, any) {
		key := byFlag[f.Name]
		if key == "" || !f.Changed {
			return "", nil
		}
		l.origin[key] = origin{layerFlag, "flag --" + f.Name}
		return key, f.Value.String()
	}), nil)
}

func (l *loader) readFile(in Input) error {
	path := in.File
	if path == "" {
		path = l.env["LONGSHORE_AGENT_CONFIG"]
	}
	if path == "" {
		path = find(in.Directories)
	}
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	if err := l.k.Load(rawBytes(text), yaml.Parser()); err != nil {
		return fmt.Errorf("configuration file %s: not a YAML document of keys and values: %w", path, err)
	}
	l.file = path
	// A section that is no option itself is looked into; an option may hold
	// anything, and is checked when it is read.
	for _, key := range l.k.Keys() {
		if option := l.optionAbove(key); option != "" {
			l.origin[option] = origin{layerFile, "key " + option + " in " + path}
			continue
		}
		l.unknown("key "+key+" in "+path, key, func(o Option) string { return o.Key })
	}
	return nil
}

// optionAbove returns the option that key is, or lies in.
func (l *loader) optionAbove(key string) string {
	for key != "" {
		if _, ok := l.known[key]; ok {
			return key
		}
		key = key[:max(strings.LastIndexByte(key, '.'), 0)]
	}
	return ""
}

func (l *loader) readEnv() error {
	values, names := map[string]any{}, map[string]bool{"LONGSHORE_AGENT_CONFIG": true}
	for _, o := range l.known {
		for _, name := range o.EnvNames() {
			names[name] = true
			if _, done := values[o.Key]; !done && l.env[name] != "" {
				values[o.Key] = l.env[name]
				l.origin[o.Key] = origin{layerEnv, "environment variable " + name}
			}
		}
	}
	var strange []string
	for name := range l.env {
		if strings.HasPrefix(name, "LONGSHORE_AGENT_") && !names[name] {
			strange = append(strange, name)
		}
	}
	slices.Sort(strange)
	for _, name := range strange {
		l.unknown("environment variable "+name, name, func(o Option) string { return o.EnvNames()[0] })
	}
	return l.k.Load(readMap(maps.Unflatten(values, ".")), nil)
}

func (l *loader) unknown(where, name string, spell func(Option) string) {
	best, distance := "", len(name)/3+1
	for _, o := range Options() {
		if d := editDistance(name, spell(o)); d < distance {
			best, distance = spell(o), d
		}
	}
	warning := where + " is unknown and ignored"
	if best != "" {
		warning += ": is " + best + " meant?"
	}
	l.warnings = append(l.warnings, warning)
}

func find(dirs []string) string {
	for _, dir := range dirs {
		for _, name := range FileNames() {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path
			}
		}
	}
	return ""
}

// editDistance is the number of characters to insert, delete or replace that
// make b out of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// rawBytes and readMap are koanf providers of what has been read already.
type rawBytes []byte

func (b rawBytes) ReadBytes() ([]byte, error)    { return b, nil }
func (b rawBytes) Read() (map[string]any, error) { return nil, errors.ErrUnsupported }

type readMap map[string]any

func (m readMap) ReadBytes() ([]byte, error)    { return nil, errors.ErrUnsupported }
func (m readMap) Read() (map[string]any, error) { return m, nil }
