#!/bin/sh
# Answers with an error of 10 MB.
read -r line || exit 0
id=${line#'{"id":'}
id=${id%%,*}
exec awk -v id="$id" 'BEGIN {
    printf "{\"id\":%s,\"error\":\"ValueError\",\"message\":\"", id
    for (count = 0; count < 2000000; count++) printf "much "
    print "\"}"
}'
