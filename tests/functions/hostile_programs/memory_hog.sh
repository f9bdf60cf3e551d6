#!/bin/sh
# Doubles what it holds; at most half a gigabyte.
read -r line || exit 0
exec awk 'BEGIN { held = "x"; while (length(held) < 536870912) held = held held; print "took", length(held) }'
