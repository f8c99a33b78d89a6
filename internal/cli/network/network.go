// Package network is the commands about networks.
package network
