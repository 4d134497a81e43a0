#!/bin/bash
# A real S3 server over a directory: conditional puts, checked checksums, versions, object lock. Started by tests/support/s3.py.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
go_tool github.com/versity/versitygw/cmd/versitygw "${VERSITYGW_VERSION:-v1.8.0}" versitygw
