package config

import (
	"strings"

	"github.com/spf13/pflag"
)

// AddFlags declares a flag for every option in fs. The values are checked by
// Load, together with those from elsewhere. Flags of options that are not acted
// on are hidden from the help.
func AddFlags(fs *pflag.FlagSet) {
	for _, o := range Options() {
		help := o.Help
		if o.DefaultHelp != "" {
			help += " (default " + o.DefaultHelp + ")"
		}
		_, isBool := o.field(new(Agent)).(*bool)
		flag := fs.VarPF(&flagValue{text: o.Default, kind: flagKind(o)}, o.Flag(), "", help)
		flag.Hidden = o.Unused != ""
		if isBool {
			flag.NoOptDefVal = "true"
			if o.Default == "false" {
				flag.DefValue = "" // not worth a mention
			}
		}
	}
}

func flagKind(o Option) string {
	switch kind := o.Kind(); kind {
	case "text":
		if strings.HasSuffix(o.Key, "_url") {
			return "url"
		}
		return "text"
	case "true or false":
		return "bool"
	case "whole number":
		return "number"
	default:
		return kind
	}
}

// flagValue is a flag that is checked later.
type flagValue struct{ text, kind string }

func (v *flagValue) String() string { return v.text }
func (v *flagValue) Type() string   { return v.kind }
func (v *flagValue) Set(text string) error {
	v.text = text
	return nil
}
