#!/bin/sh
# Fills its folder with files, some of them removed while open; at most a quarter of a gigabyte.
read -r line || exit 0
number=0
while [ "$number" -lt 64 ]; do
    head -c 4194304 /dev/zero >"fill$number"
    if [ $((number % 8)) -eq 1 ]; then
        eval "exec $((3 + number / 8))>>fill$number"
        rm "fill$number"
    fi
    number=$((number + 1))
done
echo "filled all"
sleep 30
