# The FreeRTOS kernel as an object library, for one board.
#
# FREERTOS_KERNEL_PATH (CMake variable or environment) names a checkout of FreeRTOS-Kernel V11.2.0; without it the
# sources are fetched once into .cache/freertos at the checkout's root.
if(NOT FREERTOS_KERNEL_PATH AND DEFINED ENV{FREERTOS_KERNEL_PATH})
    set(FREERTOS_KERNEL_PATH "$ENV{FREERTOS_KERNEL_PATH}")
endif()
if(NOT FREERTOS_KERNEL_PATH)
    execute_process(
        COMMAND "${CMAKE_CURRENT_LIST_DIR}/fetch_sources.sh" "${CMAKE_CURRENT_LIST_DIR}/../.cache/freertos"
        OUTPUT_VARIABLE FREERTOS_KERNEL_PATH
        OUTPUT_STRIP_TRAILING_WHITESPACE
        COMMAND_ERROR_IS_FATAL ANY)
endif()
if(NOT EXISTS "${FREERTOS_KERNEL_PATH}/tasks.c")
    message(FATAL_ERROR "FREERTOS_KERNEL_PATH=${FREERTOS_KERNEL_PATH} holds no FreeRTOS kernel (tasks.c is missing)")
endif()

# add_kernel(PORT config_folder [further port sources]): the target `kernel`. PORT is a folder below portable/.
function(add_kernel port config_folder)
    set(port_folder "${FREERTOS_KERNEL_PATH}/portable/${port}")
    list(TRANSFORM ARGN PREPEND "${port_folder}/" OUTPUT_VARIABLE further)
    add_library(kernel STATIC
        "${FREERTOS_KERNEL_PATH}/tasks.c"
        "${FREERTOS_KERNEL_PATH}/list.c"
        "${FREERTOS_KERNEL_PATH}/queue.c"
        "${port_folder}/port.c"
        ${further})
    # SYSTEM: the kernel's headers are not held to our warnings.
    target_include_directories(kernel SYSTEM PUBLIC "${FREERTOS_KERNEL_PATH}/include" "${port_folder}" "${port_folder}/utils")
    target_include_directories(kernel PUBLIC "${config_folder}")
    target_compile_options(kernel PRIVATE -w)
endfunction()
