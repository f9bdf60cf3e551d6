#!/bin/sh
# An exec function in a shell: counts the calls, asks for the gateway's shadow at the second, and reads its answer.
echo "counting"
count=0
while IFS= read -r line; do
    id=${line#'{"id":'}
    id=${id%%,*}
    count=$((count + 1))
    if [ "$count" -eq 2 ]; then
        printf '{"shadow":"get","ref":1}\n'
        IFS= read -r answer
        printf 'the shadow: %s\n' "$answer"
    fi
    printf '{"publish":"count","payload":%d}\n{"id":%s,"result":"call %d"}\n' "$count" "$id" "$count"
done
echo "ended" >&2
