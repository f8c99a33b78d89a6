#!/bin/bash
# Runs every Fuzz function of the repository, one after the other, for FUZZTIME each. FUZZ is a regular expression for those to run
# (./internal/image/layer.FuzzUnpack); what a target finds is kept in its testdata/fuzz, to be committed with the fix.
set -u
cd "$(dirname "$0")/.."
failed=()
while IFS=: read -r file line; do
  name=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$line")
  package=./$(dirname "$file")
  [[ "$package.$name" =~ ${FUZZ:-.} ]] || continue
  echo "== $package.$name"
  CGO_ENABLED=0 timeout --kill-after=10s 30m go test -run='^$' -fuzz="^$name\$" -fuzztime="${FUZZTIME:-60s}" -parallel="${FUZZPARALLEL:-2}" "$package" || failed+=("$package.$name")
done < <(git ls-files '*_test.go' | xargs grep -E '^func Fuzz[A-Za-z0-9_]*\(' | sort)
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
