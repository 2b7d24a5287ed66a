// Package telemetry is how a program of ours tells an operator about itself:
// its logger, its metrics registry, and the small HTTP server that answers
// /healthz, /readyz and /metrics. It knows nothing of what the program does.
package telemetry

import (
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The formats of a program's log.
const (
	FormatJSON    = "json"
	FormatConsole = "console"
)

// NewLogger returns a logger that writes to w, one entry a line, from the given
// level on (debug, info, warn, error). Times are UTC in RFC 3339.
func NewLogger(w io.Writer, format, level string) (*zap.Logger, error) {
	var lowest zapcore.Level
	if err := lowest.UnmarshalText([]byte(level)); err != nil || lowest > zapcore.ErrorLevel {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	config := zap.NewProductionEncoderConfig()
	config.TimeKey, config.MessageKey = "time", "message"
	config.EncodeTime = utcTime
	config.EncodeDuration = zapcore.StringDurationEncoder
	var encoder zapcore.Encoder
	switch format {
	case FormatJSON:
		encoder = zapcore.NewJSONEncoder(config)
	case FormatConsole:
		config.EncodeLevel = zapcore.CapitalLevelEncoder
		config.ConsoleSeparator = "  "
		encoder = zapcore.NewConsoleEncoder(config)
	default:
		return nil, fmt.Errorf("log format %q: want json or console", format)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), lowest)), nil
}

func utcTime(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(t.UTC().Format("2006-01-02T15:04:05.000Z"))
}
