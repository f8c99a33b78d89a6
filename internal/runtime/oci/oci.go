// Package oci is the OCI runtime command line of tare-run.
package oci
