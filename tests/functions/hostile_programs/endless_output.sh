#!/bin/sh
# Writes lines to its outputs without end, in between empty ones: for a minute, at most 400 MB.
read -r line || exit 0
timeout 60 yes endless | head -c 200000000 >&2 &
timeout 60 yes 'endless

' | head -c 200000000
