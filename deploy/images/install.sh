#!/bin/sh
# Run as /tools/install in the last stage of an image: install.sh PACKAGE..., from the wheels in /wheels.
set -eu
/tools/bin/pip --python /opt/raglan/bin/python install --no-index --find-links /wheels "$@"
# No program reads the tests of its packages, nor their type stubs.
find /opt/raglan/lib -type d -name tests -prune -exec rm -r {} +
find /opt/raglan/lib -name '*.pyi' -delete
