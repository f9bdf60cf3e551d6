# Toolchain of the Cortex-M boards: gcc-arm-none-eabi with picolibc. The board's toolchain file sets MACHINE_FLAGS first.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_EXECUTABLE_SUFFIX_C .elf)
set(CMAKE_C_FLAGS_INIT "${MACHINE_FLAGS} -mthumb --specs=picolibc.specs -Os -g -ffunction-sections -fdata-sections")
