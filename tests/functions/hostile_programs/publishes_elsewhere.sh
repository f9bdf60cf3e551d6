#!/bin/sh
# Publishes where it may not, asks what came of it, and claims to be done.
read -r line || exit 0
id=${line#'{"id":'}
id=${id%%,*}
printf '{"publish":"cmd/stolen","payload":1,"ref":1}\n'
read -r answer
printf 'told %s\n' "$answer"
printf '{"publish":"%s","payload":1}\n' cmd/stolen 'cmd/#' '$SYS/broker'
printf '{"shadow":"update","ref":2,"payload":{"state":{"reported":{"stolen":1}}}}\n'
read -r answer
printf 'told %s\n' "$answer"
printf '{"id":%s}\n' "$id"
read -r line
