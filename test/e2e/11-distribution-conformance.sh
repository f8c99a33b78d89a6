#!/usr/bin/env bash
# The OCI's public conformance suite for registries (github.com/opencontainers/distribution-spec/conformance), all four workflows on, must pass in
# full. It is built in a module of its own: the project depends on none of it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
setup distribution
start_registry
mkdir "$work/suite"
cd "$work/suite"
# The newest version that the module proxy and the checksum database both have.
cat >go.mod <<'MOD'
module suite
go 1.26
require github.com/opencontainers/distribution-spec/conformance v0.0.0-20230516164017-7fcdf80f3c8b
MOD
say "building the suite"
GOFLAGS=-mod=mod CGO_ENABLED=0 go test -c -o suite.test github.com/opencontainers/distribution-spec/conformance 2>"$work/build.log"
export OCI_ROOT_URL=http://$registry OCI_NAMESPACE=conformance/one OCI_CROSSMOUNT_NAMESPACE=conformance/two OCI_AUTOMATIC_CROSSMOUNT=1
export OCI_TEST_PULL=1 OCI_TEST_PUSH=1 OCI_TEST_CONTENT_DISCOVERY=1 OCI_TEST_CONTENT_MANAGEMENT=1 OCI_HIDE_SKIPPED_WORKFLOWS=0 OCI_REPORT_DIR=$work/suite
say "running it"
./suite.test >"$work/suite.log" 2>&1 || fail "the suite: $(sed 's/\x1b\[[0-9;]*m//g' "$work/suite.log" | grep '\[Fail\]')"
summary=$(sed 's/\x1b\[[0-9;]*m//g' "$work/suite.log" | grep -E '^SUCCESS!' || true)
contains "$summary" " 0 Failed" "the suite's summary"
# Four are skipped: each is the other branch of one that ran (no push allowed, no automatic mount).
contains "$summary" "64 Passed" "the suite's summary"
contains "$summary" "4 Skipped" "the suite's summary"
say "$summary"
