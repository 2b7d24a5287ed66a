package control

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// MergeSettings lays a request over saved settings, both JSON objects, and
// returns the result: the request wins, objects are merged field by field, and
// everything else (texts, lists, secrets) is replaced as a whole. Three things
// that exclude each other replace each other: the kinds of source, branch and
// commit, and the kinds of git credentials.
func MergeSettings(settings, request []byte) ([]byte, error) {
	var base, over map[string]any
	for _, side := range []struct {
		name string
		text []byte
		into *map[string]any
	}{{"saved settings", settings, &base}, {"request", request, &over}} {
		d := json.NewDecoder(bytes.NewReader(side.text))
		d.UseNumber()
		if err := d.Decode(side.into); err != nil {
			return nil, fmt.Errorf("%s: %w", side.name, err)
		}
	}
	out, err := json.Marshal(mergeObjects("", base, over))
	if err != nil {
		return nil, fmt.Errorf("merge settings: %w", err)
	}
	return out, nil
}

// whole are the objects that are replaced as a whole, by the path of the
// object that holds them.
var whole = map[string]bool{
	"operationContext.environmentVariables": true, // each value is a secret form
}

// rivals are the fields of an object of which one drives out the others.
var rivals = map[string][]string{
	"sourceContext":                  {"git", "hg", "template"},
	"sourceContext.git":              {"branch", "commit"},
	"sourceContext.git.gitAuth":      {"accessToken", "basicAuth", "sshAuth"},
	"sourceContext.template.gitAuth": {"accessToken", "basicAuth", "sshAuth"},
}

func mergeObjects(path string, base, over map[string]any) map[string]any {
	out := map[string]any{}
	for name, v := range base {
		out[name] = v
	}
	for _, name := range rivals[path] {
		if _, given := over[name]; !given {
			continue
		}
		for _, other := range rivals[path] {
			if other != name {
				delete(out, other)
			}
		}
	}
	for name, v := range over {
		field := name
		if path != "" {
			field = path + "." + name
		}
		newer, isObject := v.(map[string]any)
		older, wasObject := out[name].(map[string]any)
		if isObject && wasObject && !whole[path] && !secretForm(newer) {
			out[name] = mergeObjects(field, older, newer)
			continue
		}
		out[name] = v
	}
	return out
}

// secretForm reports whether an object is the wire form of a secret value.
func secretForm(o map[string]any) bool {
	for _, name := range []string{"secret", "ciphertext", "isSecret"} {
		if _, has := o[name]; has {
			return true
		}
	}
	return false
}
