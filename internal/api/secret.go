package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// SecretValue is a value that a user may have marked secret. Four wire forms
// are read: "text" (plain), {"secret":"text"}, {"ciphertext":"..."} and
// {"isSecret":bool,"value":"text"}.
//
// Exactly one of Value and Ciphertext is meaningful: Ciphertext when it is not
// empty. Printing a SecretValue with fmt never shows a secret; MarshalJSON
// does, because it is the wire form.
type SecretValue struct {
	Value      string // the clear text, when Ciphertext is empty
	Secret     bool   // whether the value must be masked and encrypted at rest
	Ciphertext []byte // sealed by the service; base64 on the wire
}

// PlainValue returns a value that is not secret.
func PlainValue(text string) SecretValue { return SecretValue{Value: text} }

// NewSecret returns a secret value in the clear.
func NewSecret(text string) SecretValue { return SecretValue{Value: text, Secret: true} }

// IsZero reports whether v carries neither text nor ciphertext.
func (v SecretValue) IsZero() bool { return v.Value == "" && len(v.Ciphertext) == 0 }

// String keeps secrets out of logs and error messages.
func (v SecretValue) String() string {
	if v.Secret || len(v.Ciphertext) > 0 {
		return "[secret]"
	}
	return v.Value
}

// GoString is String: %#v must not leak either.
func (v SecretValue) GoString() string { return fmt.Sprintf("api.SecretValue(%q)", v.String()) }

// MarshalJSON writes the ciphertext form when v is sealed, {"secret":...} when
// it is a secret in the clear, and a bare string otherwise.
func (v SecretValue) MarshalJSON() ([]byte, error) {
	switch {
	case len(v.Ciphertext) > 0:
		return json.Marshal(struct {
			Ciphertext []byte `json:"ciphertext"`
		}{v.Ciphertext})
	case v.Secret:
		return json.Marshal(struct {
			Secret string `json:"secret"`
		}{v.Value})
	default:
		return json.Marshal(v.Value)
	}
}

var errSecretForm = errors.New(`secret value: want "text", {"secret":"text"}, {"ciphertext":"base64"} or {"isSecret":true,"value":"text"}`)

// UnmarshalJSON reads any of the four forms. Its errors never quote the input.
func (v *SecretValue) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if bytes.Equal(b, []byte("null")) {
		*v = SecretValue{}
		return nil
	}
	if len(b) > 0 && b[0] == '"' {
		var text string
		if json.Unmarshal(b, &text) != nil {
			return errSecretForm
		}
		*v = PlainValue(text)
		return nil
	}
	var form struct {
		Secret     *string `json:"secret"`
		Ciphertext []byte  `json:"ciphertext"`
		IsSecret   *bool   `json:"isSecret"`
		Value      *string `json:"value"`
	}
	if json.Unmarshal(b, &form) != nil {
		return errSecretForm
	}
	switch {
	case len(form.Ciphertext) > 0:
		*v = SecretValue{Secret: true, Ciphertext: form.Ciphertext}
	case form.IsSecret != nil || form.Value != nil:
		v.Secret = form.IsSecret != nil && *form.IsSecret
		v.Ciphertext, v.Value = nil, ""
		if form.Value != nil {
			v.Value = *form.Value
		}
	case form.Secret != nil:
		*v = NewSecret(*form.Secret)
	default:
		return errSecretForm
	}
	return nil
}
