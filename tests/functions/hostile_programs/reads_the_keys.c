/* Tries to read the files it is given, and the memory of other processes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <unistd.h>

static int has_read(const char *path) {
    char held[64];
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    ssize_t size = read(fd, held, sizeof held);
    close(fd);
    return size > 0;
}

static int has_read_memory(pid_t pid) {
    char held[64];
    struct iovec here = {held, sizeof held}, there = {(void *)&has_read, sizeof held};
    return process_vm_readv(pid, &here, 1, &there, 1, 0) > 0 || ptrace(PTRACE_ATTACH, pid, 0, 0) == 0;
}

int main(int count, char **paths) {
    char line[4096], why[1024] = "", path[64];
    long long id = 0;
    if (!fgets(line, sizeof line, stdin) || sscanf(line, "{\"id\":%lld", &id) != 1)
        return 1;
    for (int at = 1; at < count; at++) {
        if (has_read(paths[at])) {
            printf("found %s\n", paths[at]);
        } else {
            snprintf(why, sizeof why, "%s: %s", paths[at], strerror(errno));
            fprintf(stderr, "%s\n", why);
        }
    }
    pid_t others[] = {1, getppid(), getpid() - 1, getpid() + 1};
    for (size_t at = 0; at < sizeof others / sizeof *others; at++) {
        snprintf(path, sizeof path, "/proc/%d/environ", others[at]);
        if (others[at] > 0 && others[at] != getpid() && (has_read(path) || has_read_memory(others[at])))
            printf("found process %d\n", others[at]);
    }
    printf("{\"id\":%lld,\"error\":\"Refused\",\"message\":\"%s\"}\n", id, why);
    fflush(stdout);
    fgets(line, sizeof line, stdin);
    return 0;
}
