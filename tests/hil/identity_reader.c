/* Reads an identity page from stdin as the firmware does and prints what it found. */
#include <stdio.h>

#include "app/identity.h"

int main(void)
{
    unsigned char page[IDENTITY_PAGE_BYTES_MAX];
    struct identity identity;
    enum identity_result result = identity_parse(page, fread(page, 1, sizeof page, stdin), &identity);
    printf("%s", identity_result_name(result));
    if (result == IDENTITY_OK) {
        printf(" %s ", identity.board_id);
        for (int i = 0; i < IDENTITY_ENTROPY_BYTES; i++) {
            printf("%02x", identity.entropy[i]);
        }
    }
    return 0;
}
