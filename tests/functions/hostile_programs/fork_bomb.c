/* Every process begets more; at most 120 of them altogether, each for a minute. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    char line[4096];
    if (!fgets(line, sizeof line, stdin))
        return 0;
    alarm(60);
    int budget = 120;
    while (budget > 0) {
        int half = budget / 2;
        budget -= half + 1;
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            budget = half;
        } else if (pid < 0) {
            fprintf(stderr, "refused %d\n", errno);
            sleep(1);
        }
    }
    sleep(60);
    return 0;
}
