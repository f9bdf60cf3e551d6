/* The smallest board there can be, to test the launcher without the firmware: says how often it started (counted
 * in flash) and the first character of its identity, then echoes. '!' leaves the watchdog unfed. */
#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(address))
#define UART_DATA REG(0x40004000u)
#define UART_STATE REG(0x40004004u)
#define UART_CTRL REG(0x40004008u)
#define UART_BAUDDIV REG(0x40004010u)
#define WATCHDOG_LOAD REG(0x40008000u)
#define WATCHDOG_CTRL REG(0x40008008u)
#define STARTS REG(0x21001000u)
#define IDENTITY ((const volatile char *)0x21000000u)

static void put(char c)
{
    while (UART_STATE & 1u) {
    }
    UART_DATA = (uint32_t)c;
}

void reset(void)
{
    UART_BAUDDIV = 217u;
    UART_CTRL = 3u;
    (void)UART_DATA; /* QEMU looks for input again when a byte is read, not when the receiver is enabled */
    STARTS = STARTS + 1u; /* erased is 0xFFFFFFFF: the first start makes it 0 */
    put('#');
    put((char)('0' + STARTS % 10u));
    put(IDENTITY[8]);
    for (;;) {
        if (UART_STATE & 2u) {
            char c = (char)UART_DATA;
            put(c);
            if (c == '!') {
                WATCHDOG_LOAD = 25000u;
                WATCHDOG_CTRL = 3u;
                for (;;) {
                }
            }
        }
    }
}

static void hang(void) /* the watchdog's first bite is an NMI, its second the reset */
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static void *const vectors[] = {(void *)0x20010000u, (void *)reset, (void *)hang, (void *)hang};
