/// The board as a Linux process: what its files share. A reset is an exec of the same program: the UART's descriptor
/// and the retained memory pass through it, all else begins anew. A new process is a power-up.
#ifndef POSIX_BOARD_H
#define POSIX_BOARD_H

#include "board.h"

/// Ends the process with a sentence on stderr.
_Noreturn void posix_fail(const char *what, const char *name);
_Noreturn void posix_exec(enum wire_reset_reason reason);

void posix_memory_open(const char *flash_path, int inherited_retained_fd);
int posix_retained_fd(void);

void posix_uart_open(const char *path, int inherited_fd);
int posix_uart_fd(void);

#endif
