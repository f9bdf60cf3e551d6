set(MACHINE_FLAGS "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=softfp")
include(${CMAKE_CURRENT_LIST_DIR}/../cortex_m/toolchain.cmake)
