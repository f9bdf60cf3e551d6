"""The launcher: a short-lived child that takes on a function's limits and then becomes the function.

It is run by path with `-I -S`, reads its order (JSON) from a file descriptor, and uses the standard library alone. What
a mechanism cannot do here is reported, never fatal: the gateway decides (edge.functions.sandbox). Its report is up to
three lines of JSON, `{"first": …}` and `{"pid": …}` when the function runs in a process namespace, beside its first
process, and `{"held": …, "missed": …}` before the program begins; `{"error": …}` when it cannot begin."""
