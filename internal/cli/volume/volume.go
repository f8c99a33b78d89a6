// Package volume is the commands about volumes.
package volume
