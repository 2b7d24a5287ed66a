package api

import (
	"bytes"
	"encoding/json"
	"errors"
)

// DockerImage names the image a job runs in. Its wire form is a bare string
// (the reference) or an object (PROTOCOL 3).
type DockerImage struct {
	Reference   string            `json:"reference"`
	Credentials *ImageCredentials `json:"credentials,omitempty"`
	// IsDefault asks the runner for its own default image; Reference is then
	// the service's suggestion and may be ignored.
	IsDefault bool `json:"isDefault,omitempty"`
}

// ImageCredentials authenticate the pull of one image.
type ImageCredentials struct {
	Username string      `json:"username"`
	Password SecretValue `json:"password"`
}

// UnmarshalJSON reads both wire forms.
func (i *DockerImage) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if len(b) > 0 && b[0] == '"' {
		*i = DockerImage{}
		return json.Unmarshal(b, &i.Reference)
	}
	type plain DockerImage // sheds this method
	var p plain
	if err := json.Unmarshal(b, &p); err != nil {
		return errors.New(`image: want "name:tag" or {"reference":"name:tag","credentials":{"username":"...","password":"..."}}`)
	}
	*i = DockerImage(p)
	return nil
}
