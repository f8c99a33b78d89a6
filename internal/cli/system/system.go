// Package system is the commands about systems.
package system
