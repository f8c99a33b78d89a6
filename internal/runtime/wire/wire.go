// Package wire is the protocol between engine and supervisor.
package wire
