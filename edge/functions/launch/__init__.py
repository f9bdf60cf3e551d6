"""The launcher: a short-lived child that takes on a function's limits and then becomes the function.

It is run by path with `-I -S`, reads its order (JSON) from a file descriptor, and uses the standard library alone. What
a mechanism cannot do here is reported, never fatal: the gateway decides (edge.functions.sandbox). Its report is up to
two lines of JSON, `{"pid": …}` when the function runs under another pid than the launcher's, and `{"held": …,
"missed": …}` before the program begins; `{"error": …}` when it cannot begin."""
