// Package spec builds a container's OCI spec from its record: pure, one golden test per flag.
package spec
