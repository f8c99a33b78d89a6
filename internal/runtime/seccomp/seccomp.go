// Package seccomp compiles OCI seccomp profiles to BPF (seccomp(2)) by itself: a search over ranges of system call numbers instead of a chain of comparisons, so that the filter is short and installs fast.
package seccomp
