// Package supervise is the supervisor: one process per engine, parent of every container.
package supervise
