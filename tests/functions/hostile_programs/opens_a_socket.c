/* Tries to reach a port of this machine by TCP and UDP, others by raw sockets, and the socket whose path it is given;
   keeps silent about what it is refused. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void try_to_reach(const char *name, int family, int kind, const void *to, socklen_t size) {
    int fd = socket(family, kind, 0);
    if (fd < 0)
        return;
    if (!to || (connect(fd, to, size) == 0 && send(fd, "out", 3, MSG_NOSIGNAL) == 3))
        printf("reached %s\n", name);
    close(fd);
}

int main(int count, char **given) {
    char line[4096];
    long long id = 0;
    if (count < 3 || !fgets(line, sizeof line, stdin) || sscanf(line, "{\"id\":%lld", &id) != 1)
        return 1;
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(given[1]))};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    strncpy(local.sun_path, given[2], sizeof local.sun_path - 1);
    try_to_reach("tcp", AF_INET, SOCK_STREAM, &inet, sizeof inet);
    try_to_reach("udp", AF_INET, SOCK_DGRAM, &inet, sizeof inet);
    try_to_reach("raw", AF_INET6, SOCK_RAW, NULL, 0);
    try_to_reach("packet", AF_PACKET, SOCK_RAW, NULL, 0);
    try_to_reach("netlink", AF_NETLINK, SOCK_RAW, NULL, 0);
    try_to_reach("path", AF_UNIX, SOCK_STREAM, &local, sizeof local);
    printf("{\"id\":%lld}\n", id);
    fflush(stdout);
    return fgets(line, sizeof line, stdin) ? 1 : 0;
}
