#!/bin/sh
# A function in a shell: one call a line on stdin; `publish`, and at the end `id`, on stdout. Counts the calls.
count=0
while IFS= read -r line; do
    id=${line#'{"id":'}
    id=${id%%,*}
    count=$((count + 1))
    printf '{"publish":"count/calls","payload":%d}\n{"id":%s}\n' "$count" "$id"
done
