#!/bin/sh
# Tries to write, link, rename and remove in the folders it is given, and answers with what stood in its way.
read -r line || exit 0
id=${line#'{"id":'}
id=${id%%,*}
why=
for folder in "$@"; do
    for step in "chmod 777 $folder" "cp /etc/passwd $folder/planted" "ln -s /etc/passwd $folder/planted" \
        "ln $folder/version stolen" "rm -r $folder" "mv $folder $folder-gone"; do
        if problem=$($step 2>&1); then
            echo "done: $step"
        else
            echo "$problem" >&2
            why=$(printf %s "$problem" | tr -d '"\\\n')
        fi
    done
done
printf '{"id":%s,"error":"Refused","message":"%s"}\n' "$id" "$why"
read -r line
