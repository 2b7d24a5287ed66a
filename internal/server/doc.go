// Package server is the REST face of the control plane: routes, tokens, JSON,
// errors. It has no rules of its own and no SQL; what a call means is decided
// by package control.
//
// The routes and their parameters are generated from api/openapi.yaml, and so
// are the models of package api.
package server

//go:generate go tool -modfile=../../hack/tools/go.mod oapi-codegen -config ../../api/models.yaml ../../api/openapi.yaml
//go:generate go tool -modfile=../../hack/tools/go.mod oapi-codegen -config ../../api/server.yaml ../../api/openapi.yaml
